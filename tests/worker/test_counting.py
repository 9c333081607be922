"""What workers do for counts and pauses: they fold, and a resume wakes them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from builders import Database, a_run, a_type, ask, count, submit
from simpleworkflow import Worker
from simpleworkflow.database import Statement
from simpleworkflow.maintenance import Board, Folding
from worker.stage import WorkerThread, ended, eventually

Start = Callable[[Worker], WorkerThread]


class Asking:
    """A link that asks on the connection of a test."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ask(self, statement: Statement[Any]) -> Any:
        return ask(self._db, statement)


def test_a_worker_folds_what_it_finds(start: Start, db: Database, database_url: str) -> None:
    a_run(db, status="failed")
    assert count(db, "workflow_delta") > 0

    worker = Worker(database_url=database_url)
    worker.register("none.%", lambda _run: None)
    start(worker)

    eventually(lambda: count(db, "workflow_delta") == 0, what="the fold")
    assert db.execute("select status, runs from workflow_count where runs > 0").fetchall() == [("failed", 1)]


def test_who_finds_nothing_to_fold_looks_less_and_less_often_and_who_finds_much_more(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = (3600.0 * hour for hour in itertools.count())
    monkeypatch.setattr("simpleworkflow.maintenance.folding.monotonic", lambda: next(hours))
    folding = Folding(Asking(db))

    pauses = [asyncio.run(folding.run_once()) for _ in range(6)]
    slack_seconds = folding.slack_seconds
    submit(db)
    few = asyncio.run(folding.run_once())
    db.execute("update workflow_fold set folded_at = '-infinity'")
    db.execute("insert into workflow_delta (runs, type) select 0, 'a.v1' from generate_series(1, 3000)")
    many = asyncio.run(folding.run_once())

    assert pauses == [10, 20, 40, 60, 60, 60]
    assert (few, many) == (5, 1)
    assert (slack_seconds, folding.slack_seconds) == (30, 0.5)


def test_who_is_behind_with_folding_goes_on_at_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simpleworkflow.maintenance.folding.FOLDED_AT_ONCE", 10)
    db.execute("insert into workflow_delta (runs, type) select 0, 'a.v1' from generate_series(1, 15)")
    folding = Folding(Asking(db))

    seconds = asyncio.run(folding.run_once())

    assert (seconds, folding.slack_seconds) == (0, 0)


def test_what_one_worker_of_a_supervisor_has_folded_the_others_do_not_look_for(db: Database) -> None:
    board = Board()
    one, other = (Folding(Asking(db), board=board) for _ in range(2))
    asyncio.run(one.run_once())
    submit(db)

    seconds = asyncio.run(other.run_once())

    assert 9 < seconds <= 10
    assert count(db, "workflow_delta") > 0


@pytest.mark.fault("Concurrency", "a paused type is resumed while its workers are idle", "P7")
def test_a_resume_wakes_idle_workers(start: Start, db: Database, database_url: str) -> None:
    type_ = a_type()
    worker = Worker(poll_seconds=60, database_url=database_url)

    @worker.handler(type_)
    async def handle(run: Any) -> None: ...

    db.execute("select pause(%s)", [type_])
    start(worker)
    run_id = submit(db, type_)
    eventually(
        lambda: (
            db.execute("select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'").rowcount
        ),
        what="a hungry worker",
    )
    time.sleep(0.3)
    assert db.execute("select status from workflow_run where id = %s", [run_id]).fetchone() == ("pending",)

    db.execute("select resume(%s)", [type_])

    assert ended(db, run_id, seconds=20) == "succeeded"
