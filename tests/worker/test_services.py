"""What must go on when one of its parts is broken: a link, a heartbeat, a process that cannot be started."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest

from simpleworkflow.errors import DatabaseUnavailable
from simpleworkflow.notifier import Notifier
from simpleworkflow.resolve import Database
from simpleworkflow.statements import Claimed, Exchanged
from simpleworkflow.worker import heart as hearts
from simpleworkflow.worker.calling import Callers
from simpleworkflow.worker.engine import Engine
from simpleworkflow.worker.handlers import Handlers
from simpleworkflow.worker.heart import Heart, HeartProcess, Watched
from simpleworkflow.worker.options import HandlerOptions, WorkerOptions
from simpleworkflow.worker.slots import SlotTable

NOWHERE = Database(conninfo="", schema="none", shown="", portable="", is_embedded=False, is_pooled=False)
RUN_ID = "00000000-0000-7000-8000-000000000001"


class BrokenLink:
    """A link that cannot connect, and pauses for very long."""

    async def ask(self, statement: Any) -> Any:
        raise DatabaseUnavailable("too many connections")

    async def pause(self) -> None:
        await asyncio.Event().wait()


class HealthyLink:
    """A link whose first exchange brings a run."""

    def __init__(self) -> None:
        self._claimed = [Claimed(RUN_ID, "a.b", "{}", 1, 3, 1, "2026-01-01 00:00:00+00", False)]

    async def ask(self, statement: Any) -> Any:
        claimed, self._claimed = self._claimed, []
        return Exchanged(claimed, None, frozenset())


def test_a_late_word_of_a_cancel_leaves_the_next_attempt_alone() -> None:
    asyncio.run(_hear_of_an_earlier_attempt())


async def _hear_of_an_earlier_attempt() -> None:
    started = asyncio.Event()
    engine = an_engine([HealthyLink()], started)
    working = asyncio.create_task(engine.run())
    await asyncio.wait_for(started.wait(), 2)
    (execution,) = engine._by_id.values()

    found = [engine.find(RUN_ID, token) for token in (0, 1)]

    working.cancel()
    await asyncio.wait([working])
    assert found == [None, execution]


def test_a_link_that_cannot_connect_does_not_keep_the_other_from_claiming() -> None:
    asyncio.run(_claim_beside_a_broken_link())


async def _claim_beside_a_broken_link() -> None:
    started = asyncio.Event()
    working = asyncio.create_task(an_engine([BrokenLink(), HealthyLink()], started).run())

    try:
        await asyncio.wait_for(started.wait(), 2)
    finally:
        working.cancel()
        await asyncio.wait([working])


def test_a_worker_whose_room_shrank_to_nothing_is_not_hungry() -> None:
    asyncio.run(_be_hungry_until_there_is_no_room())


async def _be_hungry_until_there_is_no_room() -> None:
    started, hungry, sated = asyncio.Event(), asyncio.Event(), asyncio.Event()
    engine = an_engine([HealthyLink()], started)
    for _ in range(200):
        engine._room.took(0.001)  # short runs, so there is room ahead
    engine.exchanger.set_hungry = lambda is_hungry: hungry.set() if is_hungry else sated.set()
    working = asyncio.create_task(engine.run())

    try:
        await asyncio.wait_for(hungry.wait(), 2)
        sated.clear()
        engine._room.claim_nothing_ahead()  # they turned out to be long
        engine.exchanger.wake()
        await asyncio.wait_for(sated.wait(), 2)
    finally:
        working.cancel()
        await asyncio.wait([working])


def an_engine(links: list[Any], started: asyncio.Event) -> Engine:
    handlers, table = Handlers(), SlotTable.create(2)

    async def handle(run: Any) -> None:
        started.set()
        await asyncio.sleep(60)

    handlers.add("a.b", handle, HandlerOptions())
    return Engine(
        worker_id="w",
        handlers=handlers,
        patterns=["a.b"],
        options=WorkerOptions(concurrency=1),
        table=table,
        links=links,
        side=links[-1],
        callers=Callers(threads=1, cpu_processes=1, table=table),
    )


def test_a_heart_beats_on_when_a_beat_failed_for_any_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("too many open files in system")]

    def is_stopped(_: int) -> bool:
        if failures:
            raise failures.pop()
        beaten.set()
        return True

    monkeypatch.setattr(hearts, "_is_stopped", is_stopped)
    beaten = asyncio.Event()
    asyncio.run(_beat_until(beaten))


async def _beat_until(beaten: asyncio.Event) -> None:
    heart, table = Heart(NOWHERE), SlotTable.create(1)
    table.announce(lease_seconds=0.05, grace_seconds=0)
    table.hold(0, RUN_ID, 1, 0.0)
    heart.watched.append(Watched("w", os.getpid(), table))
    beating = asyncio.create_task(heart.run())

    try:
        await asyncio.wait_for(beaten.wait(), 2)
    finally:
        beating.cancel()
        await asyncio.wait([beating])


def test_a_heart_that_cannot_be_started_now_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        pid = 1

        def poll(self) -> int:
            return 1

    def start(*_: object, **__: object) -> Process:
        if failures:
            raise failures.pop()
        return Process()

    failures: list[OSError] = []
    monkeypatch.setattr("subprocess.Popen", start)
    keeper = HeartProcess(NOWHERE, "w", 1, SlotTable.create(1))
    keeper.tend()
    gc.collect()  # what other tests left to the collector is closed now, not in between
    before = len(os.listdir("/proc/self/fd"))

    failures.append(BlockingIOError("out of processes"))
    keeper.tend()
    unrelated = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    keeper.tend()

    for fd in unrelated:
        os.close(fd)  # nobody else has closed it
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_slot_table_needs_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")

    table = SlotTable.create(3)

    assert table.capacity == 3
    table.close()


def test_a_notifier_goes_on_after_an_error_that_nobody_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_notify_after_an_error(monkeypatch))


async def _notify_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    again, failures = asyncio.Event(), [RuntimeError("unthought of")]

    async def connect(*_: object, **__: object) -> None:
        if failures:
            raise failures.pop()
        again.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("simpleworkflow.notifier.connect_async", connect)
    notifier = Notifier("", "none", ["a.b"], on_wake=lambda: None, on_cancelled=lambda *_: None)
    notifying = asyncio.gather(*notifier.services())

    try:
        await asyncio.wait_for(again.wait(), 2)
    finally:
        notifying.cancel()
        await asyncio.wait([notifying])
