"""The workers tell who they are, that they are alive, and that they stop: real processes, kills and signals."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import Database, column_of, submit
from conftest import Server
from faults.pooler import pgbouncer
from roles import logins
from simpleworkflow import Client, Worker
from simpleworkflow.sql import load_script
from simpleworkflow.summaries import WorkerSummary
from simpleworkflow.worker import presence
from worker.stage import Notes, Program, WorkerThread, ended, eventually


@pytest.fixture
def client(database_url: str) -> Iterator[Client]:
    with Client(database_url) as opened:
        yield opened


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def of_state(client: Client, state: str, *, count: int = 1, seconds: float = 20) -> list[WorkerSummary]:
    """Return the workers in a state, once there are so many."""

    def look() -> list[WorkerSummary] | None:
        found = [one for one in client.workers() if one.state == state]
        return found if len(found) == count else None

    return eventually(look, seconds=seconds, what=f"{count} workers {state}: {client.workers()}")  # type: ignore[return-value]


def _ignore(run: Any) -> None:
    pass


def unseen(db: Database, seconds: float) -> None:
    """Let every worker have been seen so long ago."""
    db.execute(
        "update workflow_worker set seen_at = clock_timestamp() - make_interval(secs => %s)", [seconds]
    )


# ── a worker under a supervisor ────────────────────────────────────────────────────────────────────


def test_a_worker_says_who_it_is_and_what_it_holds(
    database_url: str, db: Database, client: Client, tmp_path: Path, notes: Notes
) -> None:
    with Program(database_url, tmp_path, options=["--concurrency", "3"]):
        of_state(client, "running")
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        notes.wait("sleep", run_id)
        [worker] = client.workers()

    assert worker.id.startswith(f"{worker.host}:{worker.pid}:")
    assert (worker.runtime, worker.concurrency, worker.held) == ("python", 3, 1)
    assert "app.sleep.v1" in worker.patterns
    assert [(str(one.id), one.attempt) for one in worker.holds] == [(run_id, 1)]
    assert worker.started_at <= worker.seen_at


def test_the_heart_says_of_all_its_workers_that_they_live_and_how_much_they_hold(
    database_url: str, db: Database, client: Client, tmp_path: Path, notes: Notes
) -> None:
    with Program(database_url, tmp_path, options=["--processes", "2"]):
        of_state(client, "running", count=2)
        run_id = submit(db, "app.block.v1", {"seconds": 60})  # its loop says nothing any more
        notes.wait("block", run_id)
        unseen(db, 3600)

        workers = of_state(client, "running", count=2, seconds=30)
        held = db.execute("select sum(held) from workflow_worker").fetchone()

    assert sum(one.held for one in workers) == 1
    assert held == (1,)


def test_a_killed_worker_is_lost_at_once_and_its_successor_is_another(
    database_url: str, client: Client, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path):
        [first] = of_state(client, "running")
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)

        [lost] = of_state(client, "lost")  # in less than three beats: its supervisor saw it die
        [second] = of_state(client, "running")

    assert lost.id == first.id
    assert lost.stopped_at is not None
    assert second.id != first.id


def test_a_worker_whose_whole_host_is_gone_is_lost_after_three_beats(
    database_url: str, db: Database, client: Client, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        [worker] = of_state(client, "running")
        os.killpg(program.pid, signal.SIGKILL)
        program.process.wait(10)
    unseen(db, 2.5 * worker.beat_seconds)
    before = [one.state for one in client.workers()]
    unseen(db, 3.5 * worker.beat_seconds)

    assert before == ["running"]
    assert [one.state for one in client.workers()] == ["lost"]


def test_a_frozen_worker_is_not_said_to_live_and_is_there_again_when_it_goes_on(
    database_url: str, db: Database, client: Client, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, options=["--processes", "2"]):
        frozen, other = of_state(client, "running", count=2)
        assert frozen.pid is not None
        os.kill(frozen.pid, signal.SIGSTOP)
        unseen(db, 3600)

        [alive] = of_state(client, "running", seconds=30)
        assert alive.id == other.id
        os.kill(frozen.pid, signal.SIGCONT)
        of_state(client, "running", count=2, seconds=30)


def test_a_worker_that_is_asked_to_stop_is_stopping_while_it_still_works_and_then_stopped(
    database_url: str, db: Database, client: Client, tmp_path: Path, notes: Notes
) -> None:
    with Program(database_url, tmp_path) as program:
        of_state(client, "running")
        run_id = submit(db, "app.long.v1", {"seconds": 2})
        notes.wait("long", run_id)
        program.signal(signal.SIGTERM)

        [stopping] = of_state(client, "stopping")
        assert program.exit_code() == 0

    [stopped] = client.workers()
    assert ended(db, run_id) == "succeeded"
    assert (stopped.state, stopped.id, stopped.held) == ("stopped", stopping.id, 0)


# ── a worker in a program of the user's own, behind a pooler ───────────────────────────────────────


def test_a_program_that_runs_its_worker_itself_is_shown_alive_by_the_heart_beside_it(
    database_url: str, db: Database, client: Client, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, is_script=True) as program:
        of_state(client, "running")
        unseen(db, 3600)
        [alive] = of_state(client, "running", seconds=30)
        program.process.kill()

        [lost] = of_state(client, "lost")  # the heart beside it saw it die

    assert alive.pid == program.pid
    assert lost.stopped_at is not None


def test_a_worker_behind_a_transaction_pooler_is_shown(
    database_url: str, db: Database, client: Client, tmp_path: Path
) -> None:
    with (
        pgbouncer(database_url) as pooler,
        Program(pooler.url, tmp_path, SIMPLEWORKFLOW_POOLER="transaction"),
    ):
        of_state(client, "running")
        unseen(db, 3600)

        of_state(client, "running", seconds=30)


# ── what the database says to it stops nobody ──────────────────────────────────────────────────────


def test_a_role_that_may_not_enter_workers_works_and_says_so_once(
    server: Server, database_url: str, db: Database, client: Client, tmp_path: Path
) -> None:
    with logins(server, database_url) as roles:
        worker_role = f"{roles.schema}_worker"
        db.execute(
            f"revoke execute on function register_worker, beat_workers, end_workers from {worker_role}".encode()
        )
        with Program(roles.url_of("worker"), tmp_path, options=["--processes", "2"]) as program:
            program.started(2)
            said = "the worker could not be entered, but works; trying again: permission denied"
            eventually(lambda: program.log.count(said) == 2, seconds=20, what=program.log)
            run_id = submit(db, "app.quick.v1")
            assert ended(db, run_id) == "succeeded"
            program.signal(signal.SIGTERM)
            assert program.exit_code() == 0

    assert client.workers() == []
    assert program.log.count("permission denied") == 2, "each process says it once, their supervisor never"
    assert program.log.count(f"{roles.schema}_worker") >= 1


def test_a_lock_on_the_workers_table_delays_no_start_no_lease_and_no_stop(
    database_url: str, db: Database, connection: Callable[[], Database], tmp_path: Path, notes: Notes
) -> None:
    holder = connection()
    with Program(database_url, tmp_path, LEASE="1.5") as program, holder.transaction():
        holder.execute("lock table workflow_worker in access exclusive mode")
        program.started(1)
        run_id = submit(db, "app.long.v1", {"seconds": 4})  # more than two leases
        notes.wait("long", run_id)
        assert ended(db, run_id) == "succeeded"
        program.signal(signal.SIGTERM)
        assert program.exit_code() == 0

    assert column_of(db, run_id, "attempt") == 1
    assert "the database is away" not in program.log


def test_a_worker_whose_row_is_gone_enters_itself_again(
    database_url: str, db: Database, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "REGISTER_SECONDS", 0.1)
    worker = Worker(database_url=database_url)
    worker.register("some.v1", _ignore)
    with WorkerThread(worker):
        [first] = of_state(client, "running")
        db.execute("delete from workflow_worker")

        [again] = of_state(client, "running")

    assert again.id == first.id


def test_what_cannot_be_entered_is_logged_once(
    database_url: str, db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "REGISTER_AGAIN_SECONDS", 0.05)
    entered: list[Any] = []
    register = presence.register_worker

    def count_and_register(*said: Any, **more: Any) -> Any:
        entered.append(said)
        return register(*said, **more)

    monkeypatch.setattr(presence, "register_worker", count_and_register)
    db.execute("alter table workflow_worker add constraint never check (false)")
    worker = Worker(database_url=database_url)
    worker.register("some.v1", _ignore)
    run_id = submit(db, "some.v1")
    with caplog.at_level(logging.WARNING), WorkerThread(worker):
        assert ended(db, run_id) == "succeeded"
        eventually(lambda: len(entered) >= 3)
        db.execute("alter table workflow_worker drop constraint never")
        eventually(lambda: db.execute("select from workflow_worker").rowcount == 1)

    assert caplog.text.count("could not be entered") == 1


def test_grants_of_the_worker_role_are_all_it_needs(
    server: Server, database_url: str, client: Client, tmp_path: Path
) -> None:
    assert "register_worker" in load_script("grants/worker")
    with logins(server, database_url) as roles, Program(roles.url_of("worker"), tmp_path) as program:
        of_state(client, "running")
        program.signal(signal.SIGTERM)
        assert program.exit_code() == 0

    of_state(client, "stopped")
    assert "permission" not in program.log
