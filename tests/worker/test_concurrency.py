"""How many at once, in what order, and by whom."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders import Database, a_type, ask, column_of, count, submit
from simpleworkflow import Worker, statements
from worker.stage import Notes, Program, WorkerThread, ended, eventually

Start = Callable[[Worker], WorkerThread]


class Gauge:
    """How many are inside at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def submit_many(db: Database, type_: str, number: int) -> None:
    db.execute(
        "select submit_many(array_fill(%s::text, array[%s]), array_fill('{}'::jsonb, array[%s]), "
        "null, null, null, null, null)",
        [type_, number, number],
    )


def drained(db: Database, type_: str, *, seconds: float = 20) -> None:
    eventually(
        lambda: count(db, "workflow_run", "type = %s and status <> 'succeeded'", type_) == 0,
        seconds=seconds,
        every=0.05,
    )


def test_no_more_handlers_run_at_once_than_concurrency_says(
    db: Database, database_url: str, start: Start
) -> None:
    worker, type_, gauge = (
        Worker(concurrency=7, poll_seconds=0.1, database_url=database_url),
        a_type(),
        Gauge(),
    )

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        with gauge:
            await asyncio.sleep(0.005)

    submit_many(db, type_, 300)
    start(worker)
    drained(db, type_)

    assert gauge.most == 7


def test_no_more_threads_run_at_once_than_threads_says(db: Database, database_url: str, start: Start) -> None:
    worker, gauge = Worker(concurrency=50, threads=3, poll_seconds=0.1, database_url=database_url), Gauge()
    type_, other = a_type(), a_type()
    pause = threading.Event()

    @worker.handler(type_)
    def handle(run: Any) -> None:
        with gauge:
            pause.wait(0.005)

    @worker.handler(other)
    async def handle_too(run: Any) -> None:
        pass

    submit_many(db, type_, 60)
    submit_many(db, other, 60)
    start(worker)
    drained(db, type_)
    drained(db, other)

    assert gauge.most == 3


def test_runs_are_not_claimed_beyond_the_room_for_them(db: Database, database_url: str, start: Start) -> None:
    worker, type_, gate = (
        Worker(concurrency=4, poll_seconds=0.1, database_url=database_url),
        a_type(),
        asyncio.Event(),
    )

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        await gate.wait()

    submit_many(db, type_, 30)
    running = start(worker)

    eventually(lambda: count(db, "workflow_run", "status = 'leased'") == 4)
    quick = submit(db, a_type())  # a pause of some exchanges
    assert column_of(db, quick, "status") == "pending"
    assert count(db, "workflow_event", "event_type = 'leased'") == 4
    running._loop.call_soon_threadsafe(gate.set)
    drained(db, type_)


def test_runs_claimed_ahead_are_given_back_when_those_before_them_are_long(
    db: Database, database_url: str, start: Start
) -> None:
    worker = Worker(concurrency=2, poll_seconds=0.1, database_url=database_url)
    short, long, gate = a_type(), a_type(), asyncio.Event()

    @worker.handler(short)
    async def handle(run: Any) -> None:
        pass

    @worker.handler(long)
    async def wait(run: Any) -> None:
        await gate.wait()

    submit_many(db, short, 3000)
    running = start(worker)
    drained(db, short)
    submit_many(db, long, 100)

    eventually(lambda: count(db, "workflow_run", "type = %s and status = 'leased'", long) > 0)
    eventually(lambda: count(db, "workflow_run", "type = %s and status = 'leased'", long) == 2, seconds=3)

    assert count(db, "workflow_run", "type = %s and status = 'pending' and attempt = 0", long) == 98
    running._loop.call_soon_threadsafe(gate.set)
    drained(db, long)


def test_better_priorities_start_first(db: Database, database_url: str, start: Start) -> None:
    worker, type_, order = Worker(concurrency=1, poll_seconds=0.1, database_url=database_url), a_type(), []

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        order.append(run.payload)

    for priority in (300, 5, 100, -7, 200):
        submit(db, type_, priority, priority=priority)
    start(worker)
    drained(db, type_)

    assert order == [-7, 5, 100, 200, 300]


def test_two_processes_execute_each_claim_of_two_thousand_runs_once(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    submit_many(db, "app.quick.v1", 2000)

    with Program(database_url, tmp_path, options=["--processes", "2"]) as program:
        program.started(2)
        drained(db, "app.quick.v1", seconds=40)

    executed = Counter(line[1:3] for line in Notes(tmp_path).all("quick"))
    assert len(executed) == 2000
    assert max(executed.values()) == 1
    assert count(db, "workflow_event", "event_type = 'leased'") == 2000
    assert ask(db, statements.verify(slack_seconds=5)) == []


def test_a_flood_of_short_runs_leaves_nothing_leased(db: Database, database_url: str, start: Start) -> None:
    worker, type_ = Worker(concurrency=3, poll_seconds=0.1, database_url=database_url), a_type()
    worker.handler(type_)(lambda _: None)

    submit_many(db, type_, 1500)
    start(worker)
    drained(db, type_)

    assert count(db, "workflow_run", "attempt <> 1 or fencing_token <> 1") == 0


def test_a_run_that_is_cancelled_while_it_waits_for_a_thread_is_not_executed(
    db: Database, database_url: str, start: Start
) -> None:
    worker = Worker(concurrency=3, threads=1, database_url=database_url)
    type_, other, gate, executed = a_type(), a_type(), threading.Event(), list[str]()
    has_begun, is_told = threading.Event(), threading.Event()

    @worker.handler(type_)
    def handle(run: Any) -> None:
        executed.append(str(run.id))
        gate.wait(10)

    @worker.handler(other)
    async def witness(run: Any) -> None:
        has_begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            is_told.set()
            raise

    start(worker)
    first = submit(db, type_)
    eventually(lambda: executed == [first])
    second, third = submit(db, type_), submit(db, other)
    eventually(lambda: column_of(db, second, "status") == "leased")
    assert has_begun.wait(10)

    # In one transaction, so that the worker hears of both at once.
    db.execute("update workflow_run set status = 'cancelled' where id in (%s, %s)", [second, third])
    assert is_told.wait(10)
    gate.set()
    assert ended(db, first) == "succeeded"
    last = submit(db, type_)
    eventually(lambda: last in executed)

    assert executed == [first, last]
