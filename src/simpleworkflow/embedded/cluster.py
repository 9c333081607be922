"""The data folder: made once, whole or not at all; the passwords and the port that belong to it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from simpleworkflow.embedded.binaries import Binaries
from simpleworkflow.embedded.home import Home
from simpleworkflow.embedded.locks import give_to_owner_of_folder
from simpleworkflow.errors import EmbeddedPostgresError

INITDB_SECONDS = 300
DYING_SECONDS = 2.0
# Below the range from which systems take the ports of outgoing connections, so that it stays ours.
PORTS = range(20_000, 32_000)

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


@dataclass(frozen=True)
class Credentials:
    """What it takes to reach the server; kept in ``server.json``, which only its owner can read."""

    port: int
    workflow_password: str
    superuser_password: str

    def url(self, *, superuser: bool = False) -> str:
        """Return the URL in the form that every client takes."""
        user, database = ("postgres", "postgres") if superuser else ("workflow", "workflow")
        password = self.superuser_password if superuser else self.workflow_password
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}?sslmode=disable"


def load_credentials(home: Home) -> Credentials | None:
    """Return the credentials of this home, or None when there are none that can be read."""
    try:
        kept = json.loads(_credentials_path(home).read_text(encoding="utf-8"))
        return Credentials(
            port=int(kept["port"]),
            workflow_password=str(kept["workflow_password"]),
            superuser_password=str(kept["superuser_password"]),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def save_credentials(home: Home, credentials: Credentials) -> None:
    """Write the credentials for their owner alone; a crash leaves the old ones or the new ones."""
    fd, name = tempfile.mkstemp(dir=home.folder, prefix="server.json.")  # mode 0600
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        give_to_owner_of_folder(fd, home.folder)
        json.dump(asdict(credentials), file)
        file.flush()
        os.fsync(fd)
    Path(name).replace(_credentials_path(home))
    _sync_folder(home.folder)


def prepare(home: Home, binaries: Binaries) -> Credentials:
    """Make the cluster if there is none; return credentials that are good for it.

    The caller holds the start lock, and no server runs.
    """
    _remove_leftovers(home)
    credentials = load_credentials(home)
    has_data = home.data.exists()
    if credentials is None:
        credentials = Credentials(
            port=0, workflow_password=secrets.token_hex(16), superuser_password=secrets.token_hex(16)
        )
        save_credentials(home, credentials)
        if has_data:
            _reset_superuser(home, binaries, credentials)
    if not has_data:
        _initialise(home, binaries, credentials)
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


def with_free_port(home: Home, credentials: Credentials, *, avoid: set[int]) -> Credentials:
    """Return credentials with a port that is free now: the remembered one if possible, and saved."""
    if credentials.port not in avoid and _is_free(credentials.port):
        return credentials
    for _ in range(200):
        port = secrets.choice(PORTS)
        if port not in avoid and _is_free(port):
            credentials = replace(credentials, port=port)
            save_credentials(home, credentials)
            return credentials
    raise EmbeddedPostgresError("127.0.0.1 has no free port from 20000 to 31999; set DATABASE_URL")


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


def one_line(text: str) -> str:
    """Return the line of a program's output that says most: the last error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    return (errors or lines or ["it said nothing"])[-1]


def _credentials_path(home: Home) -> Path:
    return home.folder / "server.json"


def _initialise(home: Home, binaries: Binaries, credentials: Credentials) -> None:
    """Run initdb beside the final place, then rename: a killed one leaves no half cluster."""
    work = Path(tempfile.mkdtemp(dir=home.folder, prefix="initdb-"))
    try:
        password = work / "password"
        password.write_text(credentials.superuser_password + "\n", encoding="ascii")
        _give(home, work, password)
        data = work / "data"
        _run(home, [binaries.folder / "initdb", *_initdb_options(binaries, data, password)])
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(SETTINGS)
            file.flush()
            os.fsync(file.fileno())
        data.rename(home.data)
        _sync_folder(home.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _initdb_options(binaries: Binaries, data: Path, password: Path) -> list[str | Path]:
    options: list[str | Path] = ["-D", data, "--username=postgres", f"--pwfile={password}"]
    options += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"]
    if binaries.major >= 17:
        # Sorted by code point like C, but upper() and lower() know more than ASCII, on every system.
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return options


def _reset_superuser(home: Home, binaries: Binaries, credentials: Credentials) -> None:
    """Give the superuser the new password when the file with the old one is gone."""
    command = f"alter role postgres password '{credentials.superuser_password}'\n"
    remove_stale_pid_file(home)
    _run(home, [binaries.folder / "postgres", "--single", "-D", home.data, "postgres"], stdin=command)


def _run(home: Home, command: list[str | Path], *, stdin: str = "") -> None:
    answer = subprocess.run(
        command,
        **home.process_options(),
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


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
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


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
