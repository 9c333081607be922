"""What every measurement stands on: a server of its own, a fresh schema, workers as `wf worker` ships them.

Rates are of no-op runs, audited and fenced: created, leased and succeeded events for every run.  The database's
clock times them, from the commit of the runs to the last finish.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from simpleworkflow import embedded
from simpleworkflow.dburl import parse
from simpleworkflow.migrate import migrate

SCHEMA = "bench"
TYPE = "bench.noop.v1"
DRAIN_SECONDS_MAX = 300


@contextmanager
def server(database_url: str | None = None) -> Iterator[str]:
    """Yield the URL of a fully durable server: the one named, or an embedded one of its own."""
    if database_url:
        yield parse(database_url).conninfo
        return
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        Path(folder).chmod(0o755)  # as root, the server runs as another account
        with embedded.start(Path(folder) / "postgres") as started:
            with psycopg.connect(started.superuser_url, autocommit=True) as conn:
                conn.execute("alter role workflow createdb")  # a database for each system that is compared
                conn.execute("grant pg_checkpoint to workflow")
            yield started.url
            started.close()


@contextmanager
def fresh_schema(url: str) -> Iterator[psycopg.Connection]:
    """Yield a connection to a server whose schema ``bench`` has just been made."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set client_min_messages = warning")
        conn.execute(f"drop schema if exists {SCHEMA} cascade".encode())
        conn.execute("checkpoint") if _may_checkpoint(conn) else None
        migrate(conn, SCHEMA)
        yield conn


def _may_checkpoint(conn: psycopg.Connection) -> bool:
    row = conn.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
    return bool(row and row[0])


@contextmanager
def worker(
    url: str,
    *,
    processes: int = 1,
    target: str = "bench_worker:worker",
    type_: str = TYPE,
    **environment: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the supervisor of a `wf worker` with its default options, once all processes have run something."""
    command = [str(Path(sys.executable).with_name("wf")), "worker", target, "--processes", str(processes)]
    separator = "&" if "?" in url else "?"
    with psycopg.connect(url, autocommit=True) as conn:
        started = _entered(conn)
        supervisor = subprocess.Popen(
            command,
            cwd=Path(__file__).parent,
            env=os.environ
            | {"DATABASE_URL": f"{url}{separator}schema={SCHEMA}", "SIMPLEWORKFLOW_LOG_LEVEL": "ERROR"}
            | environment,
        )
        try:
            _warm_up(conn, started, processes, type_)
            yield supervisor
        finally:
            supervisor.terminate()
            supervisor.wait(60)


def _warm_up(conn: psycopg.Connection, started: int, processes: int, type_: str) -> None:
    deadline = time.monotonic() + 30
    while _entered(conn) < started + processes:
        if time.monotonic() > deadline:
            raise SystemExit("bench: the workers did not start")
        time.sleep(0.05)
    submit(conn, 1000 * processes, type_)
    wait_until_drained(conn, type_)


def _entered(conn: psycopg.Connection) -> int:
    row = conn.execute(f"select count(*) from {SCHEMA}.workflow_worker".encode()).fetchone()
    assert row is not None
    return int(row[0])


def submit(conn: psycopg.Connection, runs: int, type_: str = TYPE) -> None:
    """Record so many runs in one statement."""
    conn.execute(
        f"select count(*) from {SCHEMA}.submit_many((select array_agg(%s::text) from generate_series(1, %s)),"
        f" (select array_agg('{{}}'::jsonb) from generate_series(1, %s)), null, null, null, null, null)".encode(),
        [type_, runs, runs],
    )


def drain_rate(conn: psycopg.Connection, runs: int, type_: str = TYPE) -> float:
    """Submit runs; return how many a second were finished, from their commit to the last finish."""
    submit(conn, runs, type_)
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    committed_at = row[0]
    wait_until_drained(conn, type_)
    row = conn.execute(
        f"select extract(epoch from max(finished_at) - %s) from {SCHEMA}.workflow_run"
        " where finished_at > %s".encode(),
        [committed_at, committed_at],
    ).fetchone()
    assert row is not None
    return runs / float(row[0])


def wait_until_drained(conn: psycopg.Connection, type_: str = TYPE) -> None:
    """Return when no run of the type is pending or leased; the probe costs next to nothing."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while conn.execute(
        f"select exists (select from {SCHEMA}.workflow_run where status = 'pending' and deleted_at is null"
        f" and type = %s) or exists (select from {SCHEMA}.workflow_run where status = 'leased')".encode(),
        [type_],
    ).fetchone() == (True,):
        if time.monotonic() > deadline:
            raise SystemExit("bench: not drained in time")
        time.sleep(0.05)


def memory_mb(supervisor: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of the supervisor's first worker."""
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    status = Path(f"/proc/{children[0]}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds ``work`` takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started
