"""Start the server of a folder, or join the one that runs; leave it to its last user to stop it."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from simpleworkflow.embedded import cluster, locks, process
from simpleworkflow.embedded.binaries import Binaries, choose_binaries
from simpleworkflow.embedded.credentials import Credentials, load_credentials, with_free_port
from simpleworkflow.embedded.home import Home, default_folder, settle
from simpleworkflow.embedded.pidfile import is_alive, pid_file, postmaster_pid, remove_stale_pid_file
from simpleworkflow.embedded.readable import readable_by_server
from simpleworkflow.errors import EmbeddedPostgresError

# A stop that hangs is over by then: see the keeper's two time-outs.
START_LOCK_SECONDS = 90.0
READY_SECONDS = 120.0  # crash recovery after much writing takes its time
LAUNCHES_MAX = 5
LEFTOVER_SECONDS = 30.0  # backends of a killed postmaster notice it when their statement ends


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A running server that this process uses; a context manager that gives the use up at its end.

    The server lives as long as any process uses it and stops within about 2 s of the last one's
    ``close`` or end, however that came about.  A process that forks passes its use on: the child is a
    user too, until it closes or ends.  Programs started by ``subprocess`` are not.

    ``url`` is for the role ``workflow``, which owns the database ``workflow`` and is no superuser;
    ``superuser_url`` is for tests and for repairs.
    """

    url: str = field(repr=False)
    superuser_url: str = field(repr=False)
    folder: Path
    data: Path
    port: int
    version: str
    started_here: bool
    _users: list[int] = field(repr=False, compare=False)

    def close(self) -> None:
        """Give up this use of the server; closing twice is fine."""
        while self._users:
            os.close(self._users.pop())  # not unlocked: a forked child that shares it goes on using it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(folder: Path | None = None) -> EmbeddedPostgres:
    """Start the server of ``folder``, or join the one that runs; return it ready for connections.

    Without a folder, that of the project in the current directory or of the user, see
    ``default_folder``.  Data is kept there between runs.  Any number of processes may do this at the
    same time; one starts the server, about half a second, the others join it, some 0.03 s.

    Raises:
        EmbeddedPostgresError: there is no PostgreSQL here, or it cannot run in this folder.
    """
    folder = (folder or default_folder(Path.cwd())).absolute()
    try:
        home = settle(folder)
        with locks.exclusive(home.lock("start"), seconds=START_LOCK_SECONDS):
            return _join(home)
    except (OSError, subprocess.SubprocessError, psycopg.Error) as error:
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL in {str(folder)!r} cannot be used: {cluster.one_line(str(error))}"
        ) from error


def _join(home: Home) -> EmbeddedPostgres:
    # Before anything runs: a start that is killed half-way is then the keeper's to clean up.
    users = locks.hold_shared(home.lock("users"), seconds=START_LOCK_SECONDS)
    try:
        process.ensure_keeper(home)
        started_here, credentials, version = _ensure_server(home)
        return EmbeddedPostgres(
            url=credentials.url(),
            superuser_url=credentials.url(superuser=True),
            folder=home.folder,
            data=home.data,
            port=credentials.port,
            version=version,
            started_here=started_here,
            _users=[users],
        )
    except BaseException:
        os.close(users)
        raise


# ── the server ─────────────────────────────────────────────────────────────────────────────────────


def _ensure_server(home: Home) -> tuple[bool, Credentials, str]:
    """Return whether it was started here, and how to reach it."""
    lock = locks.try_exclusive(home.lock("server"))
    if lock is None:
        running = _await_running(home)
        if running is not None:
            return False, *running
        lock = _take_server_lock(home)
    return True, *_launch(home, lock)


def _take_server_lock(home: Home) -> int:
    lock = locks.try_exclusive(home.lock("server"))
    if lock is None:
        raise EmbeddedPostgresError(f"the server in {str(home.folder)!r} was started by other means; stop it")
    return lock


def _launch(home: Home, lock: int) -> tuple[Credentials, str]:
    try:
        binaries = readable_by_server(home, choose_binaries(cluster.data_major(home)))
        credentials = cluster.prepare(home, binaries, lock=lock)
    except BaseException:
        locks.release(lock)
        raise
    taken: set[int] = set()
    for _ in range(LAUNCHES_MAX):
        with locks.handed_over(lock):
            remove_stale_pid_file(home)
            credentials = with_free_port(home, credentials, avoid=taken)
            log_start = process.trimmed_log_size(home)
            process.start_server(home, _server_command(home, binaries, credentials.port), lock=lock)
        running = _await_running(home)
        if running is not None:
            return running
        said = process.log_from(home, log_start)
        if "Address already in use" in said:
            taken.add(credentials.port)  # somebody took it between our look and the server's
        elif "FATAL" in said and "ready to accept connections" not in said:
            break  # else it was killed while or just after it started: once more
        lock = _take_server_lock(home)
    else:
        locks.release(lock)
    raise EmbeddedPostgresError(
        f"PostgreSQL {binaries.version} does not start in {str(home.folder)!r}:"
        f" {process.last_words(said)}; see {str(home.log)!r}"
    )


def _server_command(home: Home, binaries: Binaries, port: int) -> list[str]:
    # On the command line only what the launcher relies on; the rest is in postgresql.conf.
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "logging_collector": "off",
        "log_destination": "stderr",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries.folder / "postgres"), "-D", str(home.data), *options]


def _await_running(home: Home) -> tuple[Credentials, str] | None:
    """Return how to reach the server once it takes connections, or None when it is gone.

    Gone is only what has no process left: the lock that all of them inherited is free.
    """
    begin = time.monotonic()
    refused = "it is not ready"
    while locks.is_held(home.lock("server")):
        lines = pid_file(home)
        if len(lines) >= 8 and lines[7].strip() == "ready":
            try:
                return _connect(home, port=int(lines[3]))
            except psycopg.OperationalError as error:
                refused = cluster.one_line(str(error))
        pid = postmaster_pid(home)
        patience = READY_SECONDS if pid is None or is_alive(pid) else LEFTOVER_SECONDS
        if time.monotonic() - begin > patience:
            raise EmbeddedPostgresError(
                f"the server in {str(home.folder)!r} lives but has not answered for {patience:g} s"
                f" ({refused}); end its processes"
            )
        time.sleep(0.01)
    return None


def _connect(home: Home, *, port: int) -> tuple[Credentials, str]:
    """Prove that it answers, and that it is ours: SCRAM makes the server prove itself as well."""
    credentials = load_credentials(home)
    if credentials is None:
        raise EmbeddedPostgresError(
            f"the passwords of the running server are gone from {str(home.folder)!r}; stop all that uses it"
        )
    credentials = replace(credentials, port=port)
    try:
        return credentials, _version(credentials.url())
    except psycopg.OperationalError as error:
        if "too many clients" in str(error) or "connection slots are reserved" in str(error):
            return credentials, str(cluster.data_major(home))
        if "password authentication failed" not in str(error) and "does not exist" not in str(error):
            raise
    _provision(credentials)
    return credentials, _version(credentials.url())


def _version(url: str) -> str:
    with psycopg.connect(url, connect_timeout=5) as connection:
        return (connection.info.parameter_status("server_version") or "unknown").split()[0]


def _provision(credentials: Credentials) -> None:
    """Make the role and its database, or mend them: every step may have been done before."""
    name, password = sql.Identifier("workflow"), sql.Literal(credentials.workflow_password)
    with psycopg.connect(credentials.url(superuser=True), connect_timeout=5, autocommit=True) as connection:
        known = connection.execute("select from pg_roles where rolname = 'workflow'").rowcount
        verb = sql.SQL("alter" if known else "create")
        connection.execute(sql.SQL("{} role {} login password {}").format(verb, name, password))
        if not connection.execute("select from pg_database where datname = 'workflow'").rowcount:
            connection.execute("create database workflow owner workflow")
