"""The SQL of this package: migrations, which are the truth, loaded from the files beside this one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

GROUPS = ("producer", "worker", "operator", "reader")

# What anybody may execute, and what has the rights on the tables that it takes.
_READING = {
    "get_runs": "reader",
    "list_runs": "reader",
    "list_page": "reader",
    "find_runs": "reader",
    "list_events": "reader",
    "ended_runs": "reader",
    "list_policies": "reader",
    "list_pauses": "reader",
    "list_operations": "reader",
    "counts": "reader",
    "stats": "reader",
    "types": "reader",
    "list_schedules": "reader",
    "stream_place": "reader",
    "read_stream": "reader",
    "list_workers": "reader",
    "why": "reader",
    "verify": "operator",
}
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


@cache
def groups_by_name() -> Mapping[str, str]:
    """Return which of ``GROUPS`` may call each function, or insert into which table, as the files in ``grants`` say."""
    granted = {
        name: group
        for group in GROUPS
        for names in re.findall(
            r"\b(?:execute on function|insert \([^)]*\))(.*?)\bto\b",
            load_script(f"grants/{group}"),
            re.DOTALL,
        )
        for name in re.findall(r"\{schema\}\.(\w+)", names)
    }
    return _READING | granted
