"""How fast no-op runs are drained: a worker process as shipped, beside the SQL functions called bare.

    make bench                   three rounds of 60,000 runs each
    make bench QUICK=1           one round of 20,000

Everything is measured in one run on one server, in turns, so that the ratios mean something; absolute figures
are this machine's.  Audited and fenced throughout: created, leased and succeeded events for every run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from simpleworkflow import embedded
from simpleworkflow.database import run
from simpleworkflow.dburl import parse
from simpleworkflow.migrate import migrate
from simpleworkflow.statements import Finished, exchange

SCHEMA = "bench"
TYPE = "bench.noop.v1"
FLOOR_BATCH = 250  # what one exchanger of a worker with the default concurrency claims at once
DRAIN_SECONDS_MAX = 300


def main() -> None:
    """Measure, and print one table; ``--json`` prints the figures for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url", help="default: an embedded server of its own, fully durable")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with _server(options.database_url) as url:
        figures = _measure(url, options.runs, options.rounds)
    print(json.dumps(figures, indent=2) if options.json else _table(figures, options.runs, options.rounds))


def _measure(url: str, runs: int, rounds: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, value in _one_round(url, runs):
            figures.setdefault(name, []).append(value)
    return figures


def _one_round(url: str, runs: int) -> Iterator[tuple[str, float]]:
    with _fresh_schema(url) as conn:
        yield "submit in bulk, runs/s", runs / _timed(lambda: _submit(conn, runs))
        yield "SQL functions, one connection, no handlers, runs/s", runs / _timed(lambda: _drain_bare(conn))
    with _fresh_schema(url) as conn, _worker(url, processes=1) as worker:
        yield "one worker process, runs/s", _drain_rate(conn, runs)
        yield "worker memory after the first drain, MB", _memory_mb(worker)
        yield "one worker process, second drain, runs/s", _drain_rate(conn, runs)
        yield "worker memory after the second drain, MB", _memory_mb(worker)
    with _fresh_schema(url) as conn, _worker(url, processes=2):
        yield "two worker processes, runs/s", _drain_rate(conn, runs)


# ── what is measured ───────────────────────────────────────────────────────────────────────────────


def _submit(conn: psycopg.Connection, runs: int) -> None:
    conn.execute(
        f"select count(*) from {SCHEMA}.submit_many((select array_agg(%s::text) from generate_series(1, %s)),"
        f" (select array_agg('{{}}'::jsonb) from generate_series(1, %s)), null, null, null, null, null)".encode(),
        [TYPE, runs, runs],
    )


def _drain_bare(conn: psycopg.Connection) -> None:
    finished: list[Finished] = []
    while True:
        statement = exchange("bare", finished, [TYPE], limit=FLOOR_BATCH, lease_seconds=30)
        claimed = run(conn, statement, SCHEMA).claimed
        finished = sorted(Finished(one.id, one.fencing_token, "succeeded") for one in claimed)
        if not finished:
            return


def _drain_rate(conn: psycopg.Connection, runs: int) -> float:
    """Return runs per second from the commit of the runs to the last finish, by the database's clock."""
    _submit(conn, runs)
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    committed_at = row[0]
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    # A probe that costs next to nothing: the partial index of leased runs, and the lane.
    while conn.execute(
        f"select exists (select from {SCHEMA}.workflow_run where status = 'pending' and deleted_at is null"
        f" and type = %s) or exists (select from {SCHEMA}.workflow_run where status = 'leased')".encode(),
        [TYPE],
    ).fetchone() == (True,):
        if time.monotonic() > deadline:
            raise SystemExit("bench: not drained in time")
        time.sleep(0.05)
    row = conn.execute(
        f"select extract(epoch from max(finished_at) - %s) from {SCHEMA}.workflow_run".encode(),
        [committed_at],
    ).fetchone()
    assert row is not None
    return runs / float(row[0])


def _memory_mb(supervisor: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of the supervisor's first worker."""
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    status = Path(f"/proc/{children[0]}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


# ── around it ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _server(database_url: str | None) -> Iterator[str]:
    if database_url:
        yield parse(database_url).conninfo
        return
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        Path(folder).chmod(0o755)
        with embedded.start(Path(folder) / "postgres") as server:
            yield server.url
            server.close()


@contextmanager
def _fresh_schema(url: str) -> Iterator[psycopg.Connection]:
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
def _worker(url: str, *, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("wf")), "worker", "bench_worker:worker"]
    separator = "&" if "?" in url else "?"
    with psycopg.connect(url, autocommit=True) as conn:
        supervisor = subprocess.Popen(
            [*command, "--processes", str(processes)],
            cwd=Path(__file__).parent,
            env={"DATABASE_URL": f"{url}{separator}schema={SCHEMA}", "SIMPLEWORKFLOW_LOG_LEVEL": "ERROR"},
        )
        try:
            _warm_up(conn, processes)
            yield supervisor
        finally:
            supervisor.terminate()
            supervisor.wait(60)


def _warm_up(conn: psycopg.Connection, processes: int) -> None:
    """Return when every process has executed something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        _submit(conn, 200 * processes)
        time.sleep(0.3)
        row = conn.execute(
            f"select count(distinct data ->> 'worker') from {SCHEMA}.workflow_event"
            " where event_type = 'leased'".encode()
        ).fetchone()
        if row and row[0] >= processes:
            return
    raise SystemExit("bench: the workers did not start")


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _table(figures: dict[str, list[float]], runs: int, rounds: int) -> str:
    lines = [f"{runs:,} runs a round, {rounds} rounds, median (lowest to highest)", ""]
    for name, values in figures.items():
        middle = statistics.median(values)
        lines.append(f"{name:<52} {middle:>10,.0f}   ({min(values):,.0f} to {max(values):,.0f})")
    floor = statistics.median(figures["SQL functions, one connection, no handlers, runs/s"])
    worker = statistics.median(figures["one worker process, runs/s"])
    lines += ["", f"one worker process / SQL functions: {worker / floor:.2f}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
