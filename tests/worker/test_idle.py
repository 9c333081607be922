"""What idle workers ask: what one of a supervisor's workers has found, the others need not ask too."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from simpleworkflow.maintenance import LEASES, RUNS, Board, Expiry, Look, Rests, repeat
from simpleworkflow.resolve import Database
from simpleworkflow.statements import Exchanged
from simpleworkflow.worker import exchanging
from simpleworkflow.worker.calling import Callers
from simpleworkflow.worker.engine import Engine
from simpleworkflow.worker.handlers import Handlers
from simpleworkflow.worker.heart import Heart, Watched
from simpleworkflow.worker.options import HandlerOptions, WorkerOptions
from simpleworkflow.worker.slots import SlotTable

NOWHERE = Database(conninfo="", schema="none", shown="", portable="", is_embedded=False, is_pooled=False)
RUN_ID = "00000000-0000-7000-8000-000000000001"
POLL_SECONDS = 0.05
HALF_LEASE = b"5.0"  # of 30 s: five seconds at most


class CountingLink:
    """A link that counts what it is asked, and has one answer to all of it."""

    def __init__(self, answer: Any) -> None:
        self.count = 0
        self.asked: list[tuple[Any, ...]] = []
        self.functions: list[str] = []
        self.deadline_seconds = 1.0
        self._answer = answer

    async def ask(self, statement: Any) -> Any:
        self.count += 1
        self.asked.append(statement.parameters)
        self.functions.append(re.search(r"{schema}\.(\w+)", statement.sql)[1])  # type: ignore[index]
        return self._answer

    async def pause(self) -> None:
        await asyncio.sleep(0)


def an_idle_engine(link: Any, board: Board, pattern: str = "a.b", link_count: int = 1) -> Engine:
    handlers, table = Handlers(), SlotTable.create(2)

    async def handle(run: Any) -> None:
        pass

    handlers.add(pattern, handle, HandlerOptions())
    return Engine(
        worker_id="w",
        handlers=handlers,
        patterns=[pattern],
        options=WorkerOptions(concurrency=2, poll_seconds=POLL_SECONDS),
        table=table,
        links=[link] * link_count,
        side=link,
        callers=Callers(threads=1, cpu_processes=1, table=table),
        board=board,
    )


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


# ── polling ────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_does_not_ask_while_another_finds_nothing_and_asks_when_it_does_so_no_more() -> None:
    asyncio.run(_ask_beside_another())


async def _ask_beside_another() -> None:
    link, board = CountingLink(Exchanged([], None, frozenset())), Board()
    working = asyncio.create_task(an_idle_engine(link, board).run())
    await until(lambda: link.count >= 1)
    before, until_at = link.count, monotonic() + 6 * POLL_SECONDS
    while monotonic() < until_at:
        board.note(RUNS, b"a.b", Look(monotonic(), 0.0))
        await asyncio.sleep(0)

    beside_another = link.count - before
    await until(lambda: link.count > before + 1)  # alone

    working.cancel()
    await asyncio.wait([working])
    assert beside_another == 0


def test_a_worker_asks_itself_where_the_other_handles_other_types() -> None:
    asyncio.run(_ask_beside_one_of_another_type())


async def _ask_beside_one_of_another_type() -> None:
    link, board = CountingLink(Exchanged([], None, frozenset())), Board()
    working = asyncio.create_task(an_idle_engine(link, board).run())

    async def look_for_others() -> None:
        while True:
            board.note(RUNS, b"a.other", Look(monotonic(), 0.0))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look_for_others())
    await until(lambda: link.count > 3)

    for task in (working, looking):
        task.cancel()
    await asyncio.wait([working, looking])


class SlowLink(CountingLink):
    """A link whose answers take a moment, in which another link of the worker may look for work."""

    async def ask(self, statement: Any) -> Any:
        await asyncio.sleep(0.002)
        return await super().ask(statement)


def test_an_idle_worker_of_two_links_wakes_for_its_polls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanging, "LOOK_SECONDS", 0.01)
    asyncio.run(_wake_for_polls(monkeypatch))


async def _wake_for_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    link, woken = SlowLink(Exchanged([], None, frozenset())), list[float]()
    engine = an_idle_engine(link, Board(), link_count=2)
    look = engine.exchanger._look
    monkeypatch.setattr(engine.exchanger, "_look", lambda: (woken.append(monotonic()), look()))
    working = asyncio.create_task(engine.run())

    await until(lambda: link.count == 12)

    working.cancel()
    await asyncio.wait([working])
    assert len(woken) <= 13


def test_what_one_worker_found_is_told_to_the_others_with_what_is_due() -> None:
    asyncio.run(_tell_what_is_due())


async def _tell_what_is_due() -> None:
    link, board = CountingLink(Exchanged([], 1.0, frozenset(), lanes="{}", look_seconds=0.0)), Board()
    began = monotonic()
    working = asyncio.create_task(an_idle_engine(link, board).run())
    await until(lambda: board.read(RUNS, b"a.b") is not None)

    look = board.read(RUNS, b"a.b")

    working.cancel()
    await asyncio.wait([working])
    assert look is not None
    assert began <= look.looked_at <= monotonic()
    assert began + 1.0 <= look.next_at


def test_an_idle_worker_looks_after_nothing_while_it_holds_nothing() -> None:
    asyncio.run(_hold_nothing())


async def _hold_nothing() -> None:
    link = CountingLink(Exchanged([], None, frozenset()))
    engine = an_idle_engine(link, Board())
    looked: list[bool] = []
    engine._fence = lambda: looked.append(True)  # type: ignore[method-assign]
    working = asyncio.create_task(engine.run())

    await until(lambda: link.count > 5)

    working.cancel()
    await asyncio.wait([working])
    assert looked == []


# ── expiry ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_one_worker_looked_for_in_vain_is_not_looked_for_by_the_next() -> None:
    link, board = CountingLink(None), Board()
    first, second = Expiry(link, board=board), Expiry(link, board=board)  # type: ignore[arg-type]

    seconds = [asyncio.run(one.run_once()) for one in (first, second)]

    assert link.count == 1
    assert seconds[0] == 3.25
    assert 0 < seconds[1] <= 3.25


def test_a_look_for_leases_counts_only_until_the_next_may_lapse() -> None:
    link, board = CountingLink(2.0), Board()
    board.note(LEASES, HALF_LEASE, Look(monotonic() - 3, monotonic() - 1))

    seconds = asyncio.run(Expiry(link, board=board).run_once())  # type: ignore[arg-type]

    assert (link.count, seconds) == (1, 2.0)


class LapsedLink:
    """A link to a database with one lapsed lease."""

    def __init__(self) -> None:
        self._answers: list[Any] = [-0.1, {RUN_ID: "pending"}, None]

    async def ask(self, statement: Any) -> Any:
        return self._answers.pop(0)


def test_whoever_expires_runs_looks_for_them_itself() -> None:
    woken: list[int] = []
    expiry = Expiry(LapsedLink(), on_expired=woken.append)  # type: ignore[arg-type]

    asyncio.run(expiry.run_once())

    assert woken == [1]


def test_workers_of_other_leases_look_for_themselves() -> None:
    link, board = CountingLink(None), Board()
    asyncio.run(Expiry(link, board=board).run_once())  # type: ignore[arg-type]

    asyncio.run(Expiry(link, lease_seconds=3, board=board).run_once())  # type: ignore[arg-type]

    assert link.count == 2


@pytest.mark.parametrize("left", [None, 0.1, 2.0, 3.25, 4.9, 5.0, 7.0, 30.0])
def test_a_look_for_leases_may_be_late_but_not_for_one_that_lapses_before_it(left: float | None) -> None:
    board = Board()
    looking = Expiry(CountingLink(left), board=board)  # type: ignore[arg-type]
    told = Expiry(CountingLink(None), board=board)  # type: ignore[arg-type]

    looks_in = [asyncio.run(one.run_once()) for one in (looking, told)]

    # Rests are up to a twentieth longer.  No look comes later than five seconds after the one before it.
    latest = [
        1.05 * seconds + one.slack_seconds for seconds, one in zip(looks_in, (looking, told), strict=True)
    ]
    assert max(latest) <= (5.0 if left is None or left >= 5 else min(5.0, left + 0.3))
    assert [one.slack_seconds for one in (looking, told)] == 2 * [
        0.0 if left is not None and left < 5 else 1.5
    ]


# ── rests ──────────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """A service that rests for a moment, and may rest for much longer."""

    name = "counted"

    def __init__(self, slack_seconds: float) -> None:
        self.slack_seconds = slack_seconds
        self.count = 0

    async def run_once(self) -> float:
        self.count += 1
        return 0.01


def test_services_rest_until_their_idle_worker_is_awake_anyway() -> None:
    asyncio.run(_rest_until_awake())


async def _rest_until_awake() -> None:
    link = CountingLink(Exchanged([], None, frozenset()))
    engine, rests, service = an_idle_engine(link, Board()), Rests(), Counted(slack_seconds=60)
    repeating = asyncio.create_task(repeat(service, rests))
    await asyncio.sleep(0.1)
    before = service.count
    engine.exchanger.on_awake = rests.end
    working = asyncio.create_task(engine.run())

    await until(lambda: service.count == 3)

    for task in (working, repeating):
        task.cancel()
    await asyncio.wait([working, repeating])
    assert before == 1
    assert link.count >= 2  # it was the polls that woke it


def test_a_service_rests_no_longer_than_it_may_in_a_process_that_sleeps() -> None:
    asyncio.run(_rest_alone())


async def _rest_alone() -> None:
    service, began = Counted(slack_seconds=0.1), monotonic()
    repeating = asyncio.create_task(repeat(service, Rests()))

    await until(lambda: service.count == 3)

    repeating.cancel()
    await asyncio.wait([repeating])
    assert monotonic() - began >= 2 * (0.01 + 0.1)


# ── heartbeats ─────────────────────────────────────────────────────────────────────────────────────


def beats(held: list[bool]) -> list[str]:
    """Return whose leases one round of a heart extends, of workers that hold a run or nothing."""
    heart, link = Heart(NOWHERE), CountingLink({})
    heart._link = link  # type: ignore[assignment]
    for number, holds in enumerate(held):
        table = SlotTable.create(1)
        table.announce(lease_seconds=30, grace_seconds=0)
        if holds:
            table.hold(0, RUN_ID, number, 0.0)
        heart.watched.append(Watched(f"w{number}", os.getpid(), table))

    async def beat() -> None:
        beating = asyncio.create_task(heart.run())
        for _ in range(100):
            await asyncio.sleep(0)
        beating.cancel()
        await asyncio.wait([beating])

    asyncio.run(beat())
    assert link.functions.count("beat_workers") == 1  # that they are alive, for all of them together
    return [
        str(parameters[0])
        for function, parameters in zip(link.functions, link.asked, strict=True)
        if function == "heartbeat"
    ]


def test_a_heart_asks_once_for_all_that_hold_nothing_and_so_keeps_its_session() -> None:
    assert beats([False, False, False]) == ["w0"]


def test_a_heart_asks_for_each_worker_that_holds_something_and_for_no_other() -> None:
    assert beats([False, True, False, True]) == ["w1", "w3"]
