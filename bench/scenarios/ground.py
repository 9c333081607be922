"""The ground that scenarios stand on: one durable server, and databases of it that are gone after each scenario.

Two cases that are compared have a database each, so that both can be loaded beforehand and drained in turns.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from scenarios.loads import Load, drain, wait_until_ended
from scenarios.sizes import Sizes
from simpleworkflow import embedded
from simpleworkflow.dburl import parse
from stage import SCHEMA, TYPE, fresh_schema, worker

STATEMENT_SECONDS_MAX = 1800
STOP_SECONDS_MAX = 30
WARM_UP_RUNS = 500


class NotMeasured(Exception):
    """A scenario cannot be measured here; the message says why in one line."""


@dataclass(frozen=True)
class Ground:
    """A server, and how much is to be measured on it."""

    url: str = field(repr=False)
    superuser_url: str = field(repr=False)
    sizes: Sizes
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a database that is dropped at the end."""
        name = f"bench_growth_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            with psycopg.connect(self.url) as owner:
                conn.execute(f'create database {name} owner "{owner.info.user}" template template0'.encode())
            try:
                yield in_database(self.url, name)
            finally:
                conn.execute(f"drop database {name} with (force)".encode())

    @contextmanager
    def place(self, *, target: str = "growth_workers:one", load: Load | None = None) -> Iterator[Place]:
        """Yield a database with a fresh schema and one worker that is known to work."""
        load = load or Load()
        with (
            self.database() as url,
            fresh_schema(url) as conn,
            worker(url, target=target, type_=load.type.replace("#", "0")) as supervisor,
        ):
            steady(conn)
            load.submit(conn, min(WARM_UP_RUNS, self.sizes.runs))
            wait_until_ended(conn, load)
            yield Place(self, url, conn, supervisor)

    def checkpoint(self) -> None:
        """Write out what is dirty, so that what came before costs what comes next nothing."""
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            conn.execute("checkpoint")


@dataclass(frozen=True)
class Place:
    """A database with a worker: its URL, a connection for the measuring, and the worker's supervisor."""

    ground: Ground = field(repr=False)
    url: str = field(repr=False)
    conn: psycopg.Connection
    supervisor: subprocess.Popen[bytes]

    def drain(self, load: Load) -> float:
        """Return how many runs a second are drained."""
        self.ground.checkpoint()
        return drain(self.conn, load, self.ground.sizes.runs)

    def settle(self) -> None:
        """Vacuum and analyze now, so that autovacuum does not do it in the middle of a round."""
        self.conn.execute(f"vacuum (analyze) {SCHEMA}.workflow_run, {SCHEMA}.workflow_event".encode())


def steady(conn: psycopg.Connection) -> None:
    """Let the questions that measuring asks be cheap also before the table has statistics, and bounded."""
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        conn.execute(f"set {setting} = off".encode())
    conn.execute(f"set statement_timeout = '{STATEMENT_SECONDS_MAX}s'".encode())


def in_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return parse(make_conninfo(parse(url).conninfo, dbname=name)).conninfo


def in_schema(url: str) -> str:
    """Return the URL with the schema of the benchmark, as our own programs read it."""
    return f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}"


# ── the server ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def ground(sizes: Sizes, database_url: str | None = None) -> Iterator[Ground]:
    """Yield the server named, else an embedded one that is gone afterwards."""
    if database_url:
        superuser_url = os.environ.get("DATABASE_SUPERUSER_URL") or database_url
        yield Ground(parse(database_url).conninfo, parse(superuser_url).conninfo, sizes)
        return
    with tempfile.TemporaryDirectory(prefix="wf-growth-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, the server runs as another account
        _prepare(folder / "postgres")
        started = embedded.start(folder / "postgres")
        try:
            yield Ground(started.url, started.superuser_url, sizes)
        finally:
            started.close()
            _wait_until_stopped(started.superuser_url)  # before its folder goes


def _prepare(folder: Path) -> None:
    """Make the server, able to count statements; it does so only in the databases where that is switched on."""
    with embedded.start(folder) as started, psycopg.connect(started.superuser_url, autocommit=True) as conn:
        if not conn.execute("select from pg_available_extensions where name = 'pg_stat_statements'").rowcount:
            return
        conn.execute("alter system set shared_preload_libraries = 'pg_stat_statements'")
        conn.execute("alter system set pg_stat_statements.track = 'none'")
    _wait_until_stopped(started.superuser_url)


def _wait_until_stopped(url: str) -> None:
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if "refused" in str(error):
                return
        time.sleep(0.1)
    raise SystemExit("growth: the embedded server did not stop")


__all__ = ["TYPE", "Ground", "NotMeasured", "Place", "ground", "in_database", "in_schema", "steady"]
