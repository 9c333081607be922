"""For root alone: a copy of the programs where the server's account can run them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from simpleworkflow.embedded.binaries import Binaries
from simpleworkflow.embedded.home import Home
from simpleworkflow.errors import EmbeddedPostgresError

SYSTEM_CACHE = Path("/var/cache/simpleworkflow")
PROGRAMS = ("initdb", "postgres", "pg_ctl", "psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_upgrade")


def readable_by_server(home: Home, binaries: Binaries) -> Binaries:
    """Return binaries that the server's account can run, copied to a cache folder if they must be.

    No permission of an existing folder changes.

    Raises:
        EmbeddedPostgresError: the account cannot run the copy either.
    """
    if can_run(home, binaries.folder):
        return binaries
    copy = SYSTEM_CACHE / _name(binaries)
    if not copy.exists():
        _copy_tree(binaries.folder.parent, copy)
    if not can_run(home, copy / "bin"):
        raise EmbeddedPostgresError(
            f"the account of uid {home.uid} cannot run the PostgreSQL in {str(binaries.folder)!r}, nor a copy"
            f" in {str(copy)!r}; work as a normal user, or set DATABASE_URL"
        )
    return Binaries(folder=copy / "bin", version=binaries.version)


def can_run(home: Home, folder: Path) -> bool:
    """Return whether the server's account can run these programs and read their libraries."""
    if os.geteuid() != 0:
        return True
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"],
            **home.process_options(),
            capture_output=True,
            timeout=10,
            check=False,
        )
    except PermissionError:
        return False
    return answer.returncode == 0


def _name(binaries: Binaries) -> str:
    postgres = binaries.folder / "postgres"
    identity = f"{postgres}\0{postgres.stat().st_mtime_ns}"
    return f"postgres-{binaries.version}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _copy_tree(tree: Path, copy: Path) -> None:
    """Copy beside the final place, then rename: what is there is whole, also with two starts at once."""
    SYSTEM_CACHE.mkdir(parents=True, exist_ok=True)
    _refuse_if_others_can_write(SYSTEM_CACHE)
    work = Path(tempfile.mkdtemp(dir=SYSTEM_CACHE, prefix="copy-"))
    try:
        (work / "bin").mkdir()
        for program in PROGRAMS:
            if (tree / "bin" / program).exists():
                shutil.copy2(tree / "bin" / program, work / "bin" / program)
        for part in ("lib", "share"):
            shutil.copytree(tree / part, work / part, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
        _open_for_reading(work)
        try:
            work.rename(copy)
        except OSError:
            if not copy.exists():  # somebody else was first: theirs is as good
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refuse_if_others_can_write(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise EmbeddedPostgresError(f"the folder {str(folder)!r} must be root's and writable by nobody else")


def _open_for_reading(work: Path) -> None:
    """The copy is ours, so its permissions may be; the original keeps its own."""
    for folder, _, files in os.walk(work):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.parent.name == "bin" else 0o644)
