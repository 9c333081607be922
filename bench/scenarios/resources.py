"""What workers and clients cost: when nothing is to be done, and over many runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from scenarios.figures import Figure, Target
from scenarios.ground import Ground, NotMeasured, Place, in_schema
from scenarios.loads import NOOP, Load, value, wait_until_ended
from scenarios.processes import cpu_seconds, family, memory_mb
from simpleworkflow.worker.options import WorkerOptions
from stage import SCHEMA, worker

PROCESSES = 5  # of each of two services
START_SECONDS_MAX = 60.0
START_SECONDS = 3.0  # of a program that does next to nothing
POLL_SECONDS = WorkerOptions().poll_seconds
SUBMIT_SECONDS_MAX = 300
CHUNK_RUNS = 50_000
PAUSE = Load(type="bench.pause.v1")  # a worker takes as many of them as it has places, a hundred
WORKER_ID = f"select data ->> 'worker' from {SCHEMA}.workflow_event where event_type = 'leased'"
_BARE_LOOP = f"""
import asyncio
async def main():
    for _ in range(1000):
        await asyncio.sleep({POLL_SECONDS})
asyncio.run(main())"""
_STATEMENTS = """
select coalesce(substring(query from '[a-z_]+\\.([a-z_]+)\\('), 'others'), sum(calls)
  from pg_stat_statements
 where dbid = (select oid from pg_database where datname = %s)
 group by 1"""
_TRANSACTIONS = "select 'all', xact_commit + xact_rollback from pg_stat_database where datname = %s"


def idle(ground: Ground) -> Iterator[Figure]:
    """Statements a second and processor time of ten idle workers, their supervisors included."""
    options = {"target": "growth_workers:one", "processes": PROCESSES}
    with ground.place() as place, psycopg.connect(ground.superuser_url, autocommit=True) as observer:
        name = str(conninfo_to_dict(place.url)["dbname"])
        count, unit = _statement_counter(observer, name)
        with worker(place.url, **options) as first, worker(place.url, **options) as second:  # type: ignore[arg-type]
            place.supervisor.terminate()  # the ten are to be alone
            place.supervisor.wait(START_SECONDS_MAX)
            _wait_for_workers(place, 1 + 2 * PROCESSES)
            time.sleep(ground.sizes.settle_seconds)
            pids = [*family(first.pid), *family(second.pid)]
            began, before, used = time.monotonic(), count(), cpu_seconds(pids)
            time.sleep(ground.sizes.idle_seconds)
            asked, used = count() - before, cpu_seconds(pids) - used
            seconds = time.monotonic() - began
    bare = _bare_loops(len(pids), ground.sizes.idle_seconds)
    yield Figure("ten idle workers", unit, [asked.total() / seconds], Target(most=5))
    for kind, calls in asked.most_common():
        yield Figure(f"of these: {kind}", unit, [calls / seconds])
    yield Figure(
        f"ten idle workers and their supervisors, {len(pids)} processes",
        "% of a core",
        [100 * used / seconds],
        Target(most=1),
    )
    yield Figure(
        f"after them: {len(pids)} bare event loops that wake every {POLL_SECONDS:g} s",
        "% of a core",
        [100 * bare],
    )


def _bare_loops(count: int, seconds: float) -> float:
    """Return the part of a core that event loops use which only wake as often as a worker polls: the machine's part."""
    loops = [subprocess.Popen([sys.executable, "-c", _BARE_LOOP]) for _ in range(count)]
    try:
        time.sleep(START_SECONDS)
        pids = [loop.pid for loop in loops]
        began, used = time.monotonic(), cpu_seconds(pids)
        time.sleep(seconds)
        return (cpu_seconds(pids) - used) / (time.monotonic() - began)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _statement_counter(observer: psycopg.Connection, name: str) -> tuple[Callable[[], Counter[str]], str]:
    """Return how to count what the sessions of a database have asked so far, by function, and what that counts.

    Where the server does not have pg_stat_statements loaded, transactions are counted: as many in autocommit mode.
    """
    if value(
        observer, "select position('pg_stat_statements' in current_setting('shared_preload_libraries'))"
    ):
        observer.execute("create extension if not exists pg_stat_statements")
        observer.execute(f"alter database {name} set pg_stat_statements.track = 'top'".encode())
        question, unit = _STATEMENTS, "statements/s"
    else:
        question, unit = _TRANSACTIONS, "transactions/s"
    rows = question.encode()
    return lambda: Counter({kind: int(calls) for kind, calls in observer.execute(rows, [name])}), unit


def _wait_for_workers(place: Place, count: int) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while value(place.conn, f"select count(distinct worker) from ({WORKER_ID}) as leased (worker)") < count:
        if time.monotonic() > deadline:
            raise NotMeasured(f"not all of {count} workers had started within {START_SECONDS_MAX:g} s")
        PAUSE.submit(place.conn, 200 * count)
        wait_until_ended(place.conn, PAUSE)


def memory(ground: Ground) -> Iterator[Figure]:
    """Growth of a worker's memory over many runs, and the peak of one ``submit_many``."""
    sizes = ground.sizes
    with ground.place() as place:
        _flow(place, sizes.warm_up_runs)
        worker_id = value(place.conn, f"{WORKER_ID} order by workflow_id desc limit 1")
        pid = int(str(worker_id).split(":")[-2])
        before = memory_mb(pid)
        _flow(place, sizes.memory_runs)
        growth = memory_mb(pid) - before
        peak = _submit_peak(place.url, sizes.submit_runs)
    yield Figure(f"worker's growth over {sizes.memory_runs:,} runs", "MB", [growth], Target(most=5))
    yield Figure(f"worker after the first {sizes.warm_up_runs:,} runs", "MB", [before])
    yield Figure(
        f"peak above the start, {sizes.submit_runs:,} in one submit_many", "MB", [peak], Target(most=100)
    )


def _flow(place: Place, runs: int) -> None:
    for start in range(0, runs, CHUNK_RUNS):
        NOOP.submit(place.conn, min(CHUNK_RUNS, runs - start))
        wait_until_ended(place.conn, NOOP)


def _submit_peak(url: str, runs: int) -> float:
    ended = subprocess.run(
        [sys.executable, "growth_submit.py"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"DATABASE_URL": in_schema(url), "RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=SUBMIT_SECONDS_MAX,
        check=False,
    )
    if ended.returncode != 0:
        raise NotMeasured(f"growth_submit.py: {(ended.stderr.splitlines() or ['it said nothing'])[-1]}")
    return float(ended.stdout)
