"""The data folder: made once, whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from simpleworkflow.embedded.binaries import Binaries
from simpleworkflow.embedded.credentials import Credentials, load_credentials, save_credentials, sync_folder
from simpleworkflow.embedded.home import Home
from simpleworkflow.embedded.pidfile import remove_stale_pid_file
from simpleworkflow.errors import EmbeddedPostgresError

INITDB_SECONDS = 300
# In the file, not on the command line: whoever needs other values may edit them.  Durability is
# PostgreSQL's default and stays so: fsync, full_page_writes and synchronous_commit are on.
SETTINGS = """
# simple-workflow
max_connections = 200
shared_buffers = 128MB
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
"""


def prepare(home: Home, binaries: Binaries, *, lock: int) -> Credentials:
    """Make the cluster if there is none; return credentials that are good for it.

    The caller holds the start lock and ``lock``, that of the server.  The programs run here inherit
    it: when the caller is killed, the next start waits until they have ended.
    """
    _remove_leftovers(home)
    credentials = load_credentials(home)
    has_data = home.data.exists()
    if credentials is None:
        credentials = Credentials(
            port=0, workflow_password=secrets.token_hex(16), superuser_password=secrets.token_hex(16)
        )
        if has_data:
            # Before it is saved: a start that is killed in between does it again.
            _reset_superuser(home, binaries, credentials, lock=lock)
        save_credentials(home, credentials)
    if not has_data:
        _initialise(home, binaries, credentials, lock=lock)
    return credentials


def data_major(home: Home) -> int | None:
    """Return the major version that wrote the data, or None when there is no data yet.

    Raises:
        EmbeddedPostgresError: there is a data folder, and it is not PostgreSQL's.
    """
    if not home.data.exists():
        return None
    try:
        return int((home.data / "PG_VERSION").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        raise EmbeddedPostgresError(
            f"the folder {str(home.data)!r} holds no PostgreSQL data; move it away"
        ) from None


def one_line(text: str) -> str:
    """Return the line of a program's output that says most: the last error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    return (errors or lines or ["it said nothing"])[-1]


def _initialise(home: Home, binaries: Binaries, credentials: Credentials, *, lock: int) -> None:
    """Run initdb beside the final place, then rename: a killed one leaves no half cluster."""
    work = Path(tempfile.mkdtemp(dir=home.folder, prefix="initdb-"))
    try:
        password = work / "password"
        password.write_text(credentials.superuser_password + "\n", encoding="ascii")
        _give(home, work, password)
        data = work / "data"
        _run(home, [binaries.folder / "initdb", *_initdb_options(binaries, data, password)], lock=lock)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(SETTINGS)
            file.flush()
            os.fsync(file.fileno())
        data.rename(home.data)
        sync_folder(home.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _initdb_options(binaries: Binaries, data: Path, password: Path) -> list[str | Path]:
    options: list[str | Path] = ["-D", data, "--username=postgres", f"--pwfile={password}"]
    options += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"]
    if binaries.major >= 17:
        # Sorted by code point like C, but upper() and lower() know more than ASCII, on every system.
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return options


def _reset_superuser(home: Home, binaries: Binaries, credentials: Credentials, *, lock: int) -> None:
    """Give the superuser the new password when the file with the old one is gone."""
    command = f"alter role postgres password '{credentials.superuser_password}'\n"
    remove_stale_pid_file(home)
    single: list[str | Path] = [binaries.folder / "postgres", "--single", "-D", home.data, "postgres"]
    _run(home, single, stdin=command, lock=lock)


def _run(home: Home, command: Sequence[str | Path], *, lock: int, stdin: str = "") -> None:
    answer = subprocess.run(
        command,
        **home.process_options(),
        pass_fds=(lock,),
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=INITDB_SECONDS,
        check=False,
    )
    if answer.returncode != 0:
        said = one_line(answer.stdout + answer.stderr)
        raise EmbeddedPostgresError(f"{Path(command[0]).name} failed in {str(home.folder)!r}: {said}")


def _remove_leftovers(home: Home) -> None:
    """Remove what a start that was killed has left; under the start lock nobody else makes such."""
    for path in home.folder.glob("initdb-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in home.folder.glob("server.json.*"):
        path.unlink(missing_ok=True)


def _give(home: Home, *paths: Path) -> None:
    if os.geteuid() == 0:
        for path in reversed(paths):
            os.chown(path, home.uid, home.gid, follow_symlinks=False)
