"""One valid lease: zombies, silent databases, hearts that die, slots used again."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from builders import Database, a_type, ask, claim, column_of, events_of, expire, lose, status_of, submit
from faults.proxy import Proxy
from simpleworkflow import Worker, statements
from worker.stage import Notes, Program, WorkerThread, children_of, ended, eventually


@pytest.mark.fault(
    "Death, pause, leases", "SIGSTOP of one process past its lease while another claims, then SIGCONT", "P3"
)
def test_a_stopped_process_that_wakes_up_can_change_nothing(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    notes = Notes(tmp_path)
    with (
        Program(database_url, tmp_path, LEASE="1", options=["--processes", "1"]) as program,
    ):
        child = program.started().children()[0]
        run_id = submit(db, "app.sleep.v1", {"seconds": 2})
        notes.wait("sleep", run_id)
        os.kill(child, signal.SIGSTOP)
        eventually(lambda: expire(db), seconds=5)
        second = claim(db, worker="second", pattern="app.sleep.v1")
        assert second is not None

        os.kill(child, signal.SIGCONT)
        notes.wait("cancelled", run_id)
        probe = submit(db, "app.quick.v1")
        assert ended(db, probe) == "succeeded"

        assert column_of(db, run_id, "leased_by") == "second"
        assert events_of(db, run_id) == ["created", "leased", "expired", "leased"]


@pytest.mark.fault("Death, pause, leases", "SIGSTOP of the whole service past its leases, then SIGCONT", "P3")
def test_a_whole_stopped_service_that_wakes_up_can_change_nothing(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, is_script=True, LEASE="1") as program:
        program.started()
        run_id = submit(db, "app.thread.v1", {"seconds": 1.5})
        Notes(tmp_path).wait("thread", run_id)
        os.killpg(program.pid, signal.SIGSTOP)
        eventually(lambda: expire(db), seconds=5)
        second = claim(db, worker="second", pattern="app.thread.v1")
        assert second is not None

        os.killpg(program.pid, signal.SIGCONT)
        Notes(tmp_path).wait("thread-end", run_id)
        assert ended(db, submit(db, "app.quick.v1")) == "succeeded"

        assert column_of(db, run_id, "leased_by") == "second"
        assert events_of(db, run_id) == ["created", "leased", "expired", "leased"]


@pytest.mark.fault(
    "Death, pause, leases", "handlers of a program block the loop, and hold the GIL, for three leases", "P3"
)
def test_the_heart_beside_a_program_keeps_leases_whatever_its_handlers_do(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with (
        Program(database_url, tmp_path, is_script=True, LEASE="1", CONCURRENCY="1") as one,
        Program(database_url, tmp_path, is_script=True, LEASE="1", CONCURRENCY="1") as other,
    ):
        one.started()
        other.started()
        run_ids = [submit(db, f"app.{kind}.v1", {"seconds": 3.1}) for kind in ("block", "gil")]

        assert [ended(db, run_id) for run_id in run_ids] == ["succeeded", "succeeded"]

    assert [events_of(db, run_id) for run_id in run_ids] == [["created", "leased", "succeeded"]] * 2


@pytest.mark.fault("Death, pause, leases", "SIGKILL of the heart beside a program", "P3")
def test_a_heart_that_was_killed_is_replaced_before_a_lease_ends(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, is_script=True, LEASE="2") as program:
        program.started()
        run_id = submit(db, "app.sleep.v1", {"seconds": 3})
        Notes(tmp_path).wait("sleep", run_id)
        heart = children_of(program.pid)[0]

        os.kill(heart, signal.SIGKILL)

        assert ended(db, run_id) == "succeeded"
        assert events_of(db, run_id) == ["created", "leased", "succeeded"]
        assert "the heartbeat process died" in program.log


@pytest.mark.fault("Death, pause, leases", "SIGKILL of a program with its own worker", "P7")
def test_the_runs_of_a_killed_program_come_back_within_a_second(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, is_script=True, LEASE="30") as program:
        program.started()
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        Notes(tmp_path).wait("sleep", run_id)

        program.process.kill()

        eventually(lambda: status_of(db, run_id) == "pending", seconds=1.5)


@pytest.mark.fault("Death, pause, leases", "a lease lapses and the same process claims the run again", "P3")
def test_a_stale_slot_cannot_finish_a_run_that_its_own_process_claimed_again(
    db: Database, database_url: str, start: Callable[[Worker], WorkerThread]
) -> None:
    worker = Worker(lease_seconds=30, poll_seconds=0.1, database_url=database_url)
    type_, tokens, gates = a_type(), [], {1: threading.Event(), 2: threading.Event()}

    @worker.handler(type_)
    def handle(run: Any) -> int:
        tokens.append(run.fencing_token)
        gates[run.fencing_token].wait(10)
        return run.fencing_token

    start(worker)
    run_id = submit(db, type_)
    eventually(lambda: tokens == [1])
    lose(db, run_id)
    eventually(lambda: tokens == [1, 2])
    first_is_over = submit(
        db, type_
    )  # an exchange that carries the stale result is behind us when this one starts
    gates[3] = gates[1]

    gates[1].set()
    assert ended(db, first_is_over) == "succeeded"
    assert status_of(db, run_id) == "leased"
    gates[2].set()

    assert ended(db, run_id) == "succeeded"
    assert column_of(db, run_id, "result") == 2


def test_an_async_handler_that_asked_first_is_cancelled_all_the_same(
    db: Database, database_url: str, start: Callable[[Worker], WorkerThread]
) -> None:
    worker = Worker(lease_seconds=1.5, poll_seconds=0.1, database_url=database_url)
    type_, seen = a_type(), []

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        seen.append("started")
        while not run.is_cancelled():
            await asyncio.sleep(0.001)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    start(worker)
    run_id = submit(db, type_)
    eventually(lambda: seen == ["started"])
    db.execute("update workflow_registry set is_enabled = false")  # nobody claims it again

    lose(db, run_id)

    eventually(lambda: seen == ["started", "cancelled"], seconds=5)


@pytest.mark.fault(
    "Database and network", "all sessions of a worker black-holed until its handlers stop", "P3"
)
def test_a_worker_that_cannot_reach_its_database_stops_its_handlers_before_their_leases_end(
    db: Database, database_url: str
) -> None:
    network = Proxy(database_url)
    worker = Worker(lease_seconds=1.5, poll_seconds=0.1, database_url=network.url)
    type_, cancelled_at, started = a_type(), [], []

    @worker.handler(type_)
    async def handle(run: Any) -> int:
        started.append(run.attempt)
        try:
            await asyncio.sleep(60 if run.attempt == 1 else 0)
        except asyncio.CancelledError:
            cancelled_at.append(time.time())
            raise
        return run.attempt

    with WorkerThread(worker):
        run_id = submit(db, type_)
        eventually(lambda: started)

        network.black_hole()
        eventually(lambda: cancelled_at, seconds=5)
        lease_until = column_of(db, run_id, "lease_until").timestamp()
        network.heal()

        assert ended(db, run_id) == "succeeded"
    network.close()
    assert cancelled_at[0] < lease_until
    assert column_of(db, run_id, "result") == 2
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]
    assert ask(db, statements.verify(slack_seconds=5)) == []


@pytest.mark.fault("Database and network", "sessions terminated at random under load", "P1, P2")
def test_sessions_that_are_terminated_under_load_cost_nothing(
    db: Database, database_url: str, start: Callable[[Worker], WorkerThread]
) -> None:
    worker, type_ = Worker(lease_seconds=2, poll_seconds=0.2, database_url=database_url), a_type()

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        await run.heartbeat(5)
        await asyncio.sleep(0.002)

    running = start(worker)
    db.execute(
        "select submit_many((select array_agg(%s::text) from generate_series(1, 1500)), "
        "(select array_agg('{}'::jsonb) from generate_series(1, 1500)), null, null, null, null, "
        "(select array_agg(10) from generate_series(1, 1500)))",
        [type_],
    )

    def left() -> int:
        row = db.execute(
            "select count(*), count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity, "
            "(select random() as chance) as dice where application_name = 'simpleworkflow' "
            "and pid <> pg_backend_pid() and chance < 0.3 and query like %s",
            [f"%{db.schema}%"],
        ).fetchone()
        assert row is not None
        remaining = db.execute("select count(*) from workflow_run where finished_at is null").fetchone()
        assert remaining is not None
        return int(remaining[0])

    stop_terminating = monotonic() + 2
    eventually(lambda: monotonic() > stop_terminating or left() == 0, every=0.2)
    eventually(
        lambda: db.execute("select count(*) from workflow_run where finished_at is null").fetchone() == (0,),
        seconds=15,
    )

    assert running.thread.is_alive()
    assert db.execute("select count(*) from workflow_run where status <> 'succeeded'").fetchone() == (0,)
    assert ask(db, statements.verify(slack_seconds=5)) == []
