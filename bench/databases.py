"""One server for all systems, and in it a fresh database for each that is measured."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

import processes
from simpleworkflow.dburl import parse
from systems import NotMeasuredError

PROBE_SECONDS = 0.01


class Database:
    """A fresh database: its URL, and the connection that looks at it."""

    def __init__(self, url: str, conn: psycopg.Connection) -> None:
        self.url = url
        self.conn = conn
        self._backend = conn.info.backend_pid
        self._server = processes.parent(self._backend)

    def one(self, query: str) -> int:
        """Return the single number that a query answers."""
        row = self.conn.execute(query.encode()).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def wait_until_idle(self, busy: str, seconds: float, look_every: float = PROBE_SECONDS) -> float:
        """Return the moment when a probe first said that nothing is left.

        Raises:
            NotMeasuredError: it did not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            asked_at = time.monotonic()
            if not self.one(busy):
                return asked_at
            if asked_at > deadline:
                raise NotMeasuredError(f"not drained within {seconds:.0f} s")
            time.sleep(look_every)

    def wal_bytes(self) -> int:
        """Return how far the write-ahead log has come."""
        return self.one("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")

    def checkpoint(self) -> None:
        """Begin a new checkpoint where this role may; after it, the first change of a page is logged whole."""
        with suppress(errors.InsufficientPrivilege):
            self.conn.execute("checkpoint")

    def server_cpu_seconds(self) -> float | None:
        """Return the CPU time of the server's processes without this connection's; None from another machine."""
        if self._server is None or processes.name(self._server) != "postgres":
            return None
        return processes.cpu_seconds([self._server], without=self._backend)


@contextmanager
def fresh_database(url: str) -> Iterator[Database]:
    """Yield a database that has just been made, and drop it at the end."""
    name = f"wf_bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as admin:
        try:
            admin.execute(f"create database {name} template template0".encode())
        except errors.InsufficientPrivilege:
            raise NotMeasuredError("the role of --database-url may not create databases") from None
        try:
            inside = _in_database(url, name)
            with psycopg.connect(inside, autocommit=True) as conn:
                yield Database(inside, conn)
        finally:
            _drop(admin, name)


def _drop(admin: psycopg.Connection, name: str) -> None:
    """Drop a database; an autovacuum in it is a superuser's, whom our role may not end, and is waited for."""
    deadline = time.monotonic() + 60
    while True:
        try:
            admin.execute(f"drop database {name} with (force)".encode())
        except psycopg.errors.InsufficientPrivilege:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def facts(url: str) -> dict[str, str]:
    """Return what a reader has to know of the server."""
    asked = (
        "server_version",
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "shared_buffers",
        "wal_compression",
    )
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select name, current_setting(name) from pg_settings where name = any (%s)", [list(asked)]
        ).fetchall()
    return dict(sorted(rows))


def _in_database(url: str, name: str) -> str:
    """Return a URL, the one form that the drivers of all languages take."""
    parts = conninfo_to_dict(parse(url).conninfo)
    place = f"{parts.get('user', '')}:{parts.get('password', '')}@{parts.get('host', 'localhost')}"
    return f"postgresql://{place}:{parts.get('port', 5432)}/{name}?sslmode=disable"
