"""PostgreSQL's own pid file: what it says, and when it is stale."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from simpleworkflow.embedded.home import Home
from simpleworkflow.errors import EmbeddedPostgresError

DYING_SECONDS = 2.0


def remove_stale_pid_file(home: Home) -> None:
    """Remove the pid file when its number is now another program's; the lock has proved no server lives.

    PostgreSQL would refuse to start while any program has that number, which after a kill -9 in a
    container is the rule.  It is kept when the number is free: from it PostgreSQL cleans up the rest.

    Raises:
        EmbeddedPostgresError: a server that was started by other means uses the data.
    """
    pid = postmaster_pid(home)
    deadline = time.monotonic() + DYING_SECONDS
    while pid is not None and _is_postmaster_of(pid, home) and time.monotonic() < deadline:
        time.sleep(0.01)  # a killed process frees its locks a moment before it is gone
    if pid is None or not is_alive(pid):
        return
    if _is_postmaster_of(pid, home):
        raise EmbeddedPostgresError(
            f"the data in {str(home.data)!r} is used by PostgreSQL process {pid},"
            " started by other means; stop it"
        )
    (home.data / "postmaster.pid").unlink()


def postmaster_pid(home: Home) -> int | None:
    """Return the process that the pid file names, alive or not."""
    lines = pid_file(home)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def pid_file(home: Home) -> list[str]:
    """Return the lines of PostgreSQL's pid file, none when there is no such file."""
    try:
        return (home.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def is_alive(pid: int) -> bool:
    """Return whether any process has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_postmaster_of(pid: int, home: Home) -> bool:
    process = Path(f"/proc/{pid}")
    if not Path("/proc/self").exists():  # macOS
        command = ["ps", "-o", "command=", "-p", str(pid)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return "postgres" in answer.stdout and "defunct" not in answer.stdout
    try:
        # Its working directory is its data folder.  One that we may not look at is another account's
        # and cannot be ours; a zombie, which some containers keep for ever, has none.
        return (process / "cwd").readlink() == home.data.resolve()
    except OSError:
        return False
