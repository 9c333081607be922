"""Clocks that are wrong, or are set while runs are leased."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from builders import Database, column_of, count, events_of, submit
from faults.load import TYPE, Executions, Producers, agree, drained, working
from faults.servers import Clock, OwnServer, own_server
from simpleworkflow import Worker
from worker.stage import Notes, Program, WorkerThread, ended, eventually

HOUR, DAY = 3600, 86400


@contextmanager
def a_clock() -> Iterator[Clock]:
    # Not pytest's folder: the server's account reads it too.
    with tempfile.TemporaryDirectory(prefix="wf-clock-") as folder:
        Path(folder).chmod(0o755)
        yield Clock(Path(folder))


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The clock of the server."""
    with a_clock() as clock:
        yield clock


@pytest.fixture
def server(clock: Clock) -> Iterator[OwnServer]:
    with own_server(environment=clock.environment) as server:
        yield server


@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.fault("Database and network", "a worker's clock is wrong by so many days", "P12, P3")
def test_a_workers_clock_may_be_a_day_wrong(
    days: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with a_clock() as wrong:
        wrong.set(days * DAY)
        with Program(database_url, tmp_path, LEASE="1", GRACE="1", **wrong.environment) as program:
            program.started()
            long = submit(db, "app.sleep.v1", {"seconds": 3})
            delayed = submit(db, "app.quick.v1", delay=1)
            left = submit(db, "app.thread.v1", {"seconds": 60})
            Notes(tmp_path).wait("thread", left)
            assert ended(db, delayed) == "succeeded"
            assert ended(db, long) == "succeeded"
            program.signal(signal.SIGTERM)
            program.exit_code()

    assert column_of(db, long, "attempt") == 1  # three leases long
    assert events_of(db, left) == ["created", "leased", "released"]
    early = count(
        db,
        "workflow_event as e join workflow_run as run on run.id = e.workflow_id",
        "e.event_type = 'leased' and e.created_at < run.run_at and run.id = %s",
        delayed,
    )
    assert early == 0
    assert count(db, "workflow_event", "abs(extract(epoch from now() - created_at)) > 60") == 0


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
@pytest.mark.fault("Database and network", "the database's clock is set while runs are leased", "P3, P12")
def test_the_databases_clock_may_be_set_while_runs_are_leased(
    seconds: int, clock: Clock, db: Database, database_url: str
) -> None:
    executions = Executions()
    finished: list[tuple[str, int]] = []
    # Not a second: a beat that a busy machine misses then loses the lease, which the clock set back keeps for an hour.
    worker = Worker(lease_seconds=3, poll_seconds=0.2, database_url=database_url)

    @worker.handler("long.run.v1")
    async def handle(run: Any) -> int:
        executions.note(run)
        await asyncio.sleep(4)
        finished.append((str(run.id), run.fencing_token))
        return int(run.fencing_token)

    with WorkerThread(worker), working(database_url, lease_seconds=3):
        held = [submit(db, "long.run.v1") for _ in range(5)]
        eventually(lambda: len(executions.counted) == 5)
        clock.set(seconds)
        after = submit(db, TYPE)
        set_at = monotonic()
        assert ended(db, after, seconds=3) == "succeeded"
        assert monotonic() - set_at < 3
        for run_id in held:
            assert ended(db, run_id) == "succeeded"

    for run_id in held:
        assert column_of(db, run_id, "result") == column_of(db, run_id, "fencing_token")
        assert events_of(db, run_id).count("succeeded") == 1
        assert column_of(db, run_id, "attempt") <= 2
    assert set(executions.counted.values()) == {1}


@pytest.mark.fault("Database and network", "the database's clock jumps to and fro under load", "P2, P12")
def test_load_survives_a_clock_that_jumps(clock: Clock, db: Database, database_url: str) -> None:
    with working(database_url, lease_seconds=1) as executions, Producers(database_url) as producers:
        for offset in (HOUR, -HOUR, 5, 0, DAY, 0):
            producers.progress(20)
            clock.set(offset)
        # What was recorded while the clock was ahead is due when it gets there.
        clock.set(2 * DAY)
        producers.progress(20)
        producers.stop()
        drained(db)

    agree(db, producers, executions)
