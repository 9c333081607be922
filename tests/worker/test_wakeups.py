"""When a run starts: by wake-up at once, without one by the next poll, delayed ones when they are due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from builders import Database, a_type, column_of, submit
from simpleworkflow import Worker
from worker.stage import WorkerThread, ended, eventually

Start = Callable[[Worker], WorkerThread]
POLL_SECONDS = 5.0


class Started:
    """When runs started, by the clock of this machine, which is the database's too."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def seconds_after(
        self, db: Database, run_id: str, column: str = "created_at", *, within: float = 10
    ) -> float:
        eventually(lambda: run_id in self.at, seconds=within, every=0.002, what="the start of the run")
        return self.at[run_id] - float(column_of(db, run_id, column).timestamp())


def a_worker(url: str, type_: str, started: Started, **options: Any) -> Worker:
    worker = Worker(**{"poll_seconds": POLL_SECONDS, "lease_seconds": 5, "database_url": url} | options)

    @worker.handler(type_, backoff=0.3)
    async def handle(run: Any) -> None:
        started.at[str(run.id)] = time.time()
        if run.payload == "fail once" and run.attempt == 1:
            raise ValueError("once")

    return worker


def a_holder(db: Database) -> int | None:
    """Return the process id of the session that holds the hungry lock of the schema."""
    row = db.execute(
        "select pid from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted and "
        "(classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)",
        [f"{db.schema}.hungry"],
    ).fetchone()
    return None if row is None else int(row[0])


def insert(db: Database, type_: str) -> str:
    row = db.execute("insert into workflow_run (type) values (%s) returning id::text", [type_]).fetchone()
    assert row is not None
    return str(row[0])


def test_an_idle_worker_starts_an_inserted_run_long_before_its_poll(
    db: Database, database_url: str, start: Start
) -> None:
    type_, started = a_type(), Started()
    start(a_worker(database_url, type_, started))
    eventually(lambda: a_holder(db))

    latencies = []
    for _ in range(20):
        eventually(lambda: a_holder(db), every=0.001)
        latencies.append(started.seconds_after(db, insert(db, type_)))

    assert max(latencies) < 1, latencies


def test_a_delayed_run_starts_when_it_is_due(db: Database, database_url: str, start: Start) -> None:
    type_, started = a_type(), Started()
    start(a_worker(database_url, type_, started))
    eventually(lambda: a_holder(db))

    run_id = submit(db, type_, delay=0.6)

    assert 0 <= started.seconds_after(db, run_id, "run_at") < 0.25


def test_a_retry_starts_when_it_is_due(db: Database, database_url: str, start: Start) -> None:
    type_, started = a_type(), Started()
    start(a_worker(database_url, type_, started))

    run_id = submit(db, type_, "fail once")
    assert ended(db, run_id) == "succeeded"

    assert 0 <= started.seconds_after(db, run_id, "run_at") < 0.25


def test_the_worker_that_does_not_hold_the_lock_is_woken_for_its_own_type(
    db: Database, database_url: str, start: Start
) -> None:
    types, started = [a_type(), a_type()], Started()
    start(a_worker(database_url, types[0], started))
    eventually(lambda: a_holder(db))
    start(a_worker(database_url, types[1], started))
    warm = insert(db, types[1])
    started.seconds_after(db, warm)

    latencies = [started.seconds_after(db, insert(db, type_)) for type_ in types * 3]

    assert max(latencies) < 1, latencies


def test_while_the_holder_is_busy_another_idle_worker_gets_the_next_run(
    db: Database, database_url: str, start: Start
) -> None:
    type_, gate, started = a_type(), threading.Event(), Started()

    def worker() -> Worker:
        worker = Worker(poll_seconds=POLL_SECONDS, concurrency=1, database_url=database_url)

        @worker.handler(type_)
        def handle(run: Any) -> None:
            started.at[str(run.id)] = time.time()
            gate.wait(10)

        return worker

    start(worker())
    eventually(lambda: a_holder(db))
    start(worker())
    eventually(lambda: db.execute("select count(*) from workflow_registry").fetchone() == (1,))

    first, second = insert(db, type_), insert(db, type_)

    assert started.seconds_after(db, first) < 1
    assert started.seconds_after(db, second) < 1
    gate.set()
    assert (ended(db, first), ended(db, second)) == ("succeeded", "succeeded")


def test_a_worker_that_became_idle_beside_a_producer_in_flight_is_hungry_soon_after_it(
    db: Database, database_url: str, start: Start, connection: Callable[[], Database]
) -> None:
    type_, started = a_type(), Started()
    producer, listener = connection(), connection()
    listener.execute(f"listen {db.schema}".encode())

    with producer.transaction():
        run_id = insert(producer, type_)
        start(a_worker(database_url, type_, started, poll_seconds=60))
        heard = [notice.payload for notice in listener.notifies(timeout=10, stop_after=1)]
    committed_at = time.time()

    assert heard == ["who"], "it tried for the lock, and asked who holds it"
    eventually(lambda: run_id in started.at, seconds=10, what="the start of the run")
    assert started.at[run_id] - committed_at < 5


def test_a_worker_whose_lock_session_ended_is_hungry_again_at_once(
    db: Database, database_url: str, start: Start
) -> None:
    type_, started = a_type(), Started()
    start(a_worker(database_url, type_, started))
    holder = eventually(lambda: a_holder(db))

    db.execute("select pg_terminate_backend(%s)", [holder])
    eventually(lambda: a_holder(db) not in (None, holder), seconds=3)

    assert started.seconds_after(db, insert(db, type_)) < 1


@pytest.mark.parametrize("kind", ["pooled", "terminated"])
def test_without_wake_ups_a_run_starts_by_the_next_poll(
    kind: str, db: Database, database_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_, started = a_type(), Started()
    if kind == "pooled":
        monkeypatch.setenv("SIMPLEWORKFLOW_POOLER", "transaction")
    start(a_worker(database_url, type_, started, poll_seconds=0.5))
    started.seconds_after(db, insert(db, type_))

    latencies = []
    for _ in range(3):
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like %s and pid <> pg_backend_pid() "
            "and (query like 'listen%%' or query like '%%advisory%%' or query like '%%pg_notify%%')",
            [f"%{db.schema}%"],
        )
        latencies.append(started.seconds_after(db, insert(db, type_)))

    assert max(latencies) < 0.5 * 1.1 + 0.25
    if kind == "pooled":
        assert a_holder(db) is None
