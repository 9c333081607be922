"""The SQL of this package: migrations, which are the truth, loaded from the files beside this one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

_FILE_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: its number, its name, its SQL for one schema, and a fingerprint.

    The checksum is that of the template, so that it is the same in every schema.
    """

    version: int
    name: str
    sql: str
    checksum: str


def load_migrations(schema: str) -> list[Migration]:
    """Return all migrations in order, written for ``schema`` (a checked, plain identifier)."""
    found = []
    for file in resources.files(__package__).joinpath("migrations").iterdir():
        if match := _FILE_NAME.match(file.name):
            template = file.read_text(encoding="utf-8")
            checksum = hashlib.sha256(template.encode()).hexdigest()
            # Not str.format: SQL has braces of its own.
            found.append(
                Migration(int(match[1]), match[2], template.replace("{schema}", schema), checksum),
            )
    return sorted(found, key=lambda migration: migration.version)


def load_script(name: str, **names: str) -> str:
    """Return the script ``name`` of this folder with its names (checked identifiers) filled in."""
    script = resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    for key, value in names.items():
        script = script.replace(f"{{{key}}}", value)
    return script
