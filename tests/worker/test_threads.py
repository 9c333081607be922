"""The threads of sync handlers: one does many short calls, yet no call waits for another's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from simpleworkflow.worker.threads import Threads

SECONDS = 30


def an_execution(timeout_seconds: float | None = None) -> Any:
    """Return what the threads need to know of an execution."""
    claimed = SimpleNamespace(type="a.b.v1", id="0198", attempt=1)
    return SimpleNamespace(claimed=claimed, begin=lambda: timeout_seconds)


def calls(threads: Threads, *functions: Callable[[], Any]) -> Any:
    """Return what all of them return, called at once."""
    return asyncio.gather(*[threads.call([an_execution()], function) for function in functions])


def in_time(work: Any) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(SECONDS):
            return await work()

    return asyncio.run(limited())


def test_as_many_calls_as_there_are_threads_go_on_at_once() -> None:
    together = threading.Barrier(10)

    answers = in_time(lambda: calls(Threads(10), *[lambda: together.wait(SECONDS) for _ in range(10)]))

    assert sorted(answers) == list(range(10))


def test_an_answer_is_heard_while_a_later_call_goes_on() -> None:
    async def first_then_second() -> list[str]:
        threads, is_heard = Threads(2), threading.Event()
        first = asyncio.create_task(threads.call([an_execution()], lambda: "first"))
        second = asyncio.create_task(threads.call([an_execution()], lambda: is_heard.wait(SECONDS)))
        heard = [await first]
        is_heard.set()
        return [*heard, "second" if await second else "late"]

    assert in_time(first_then_second) == ["first", "second"]


def test_every_one_of_many_short_calls_has_its_own_answer() -> None:
    functions = [lambda n=n: n for n in range(2_000)]

    assert in_time(lambda: calls(Threads(10), *functions)) == list(range(2_000))


def test_a_call_that_is_past_its_time_frees_its_place_and_its_thread_ends() -> None:
    async def late_then_next() -> Any:
        threads, may_end = Threads(1), threading.Event()
        with pytest.raises(TimeoutError, match="longer than its time-out"):
            await threads.call([an_execution(0.01)], lambda: may_end.wait(SECONDS))
        answers = await calls(threads, threading.current_thread, threading.current_thread)
        may_end.set()
        return answers

    first, second = in_time(late_then_next)

    assert first is second


def test_where_no_thread_can_be_started_the_call_fails_and_the_next_one_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused_then_done() -> Any:
        threads = Threads(1)
        with monkeypatch.context() as patch:

            def refuse(_: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                await threads.call([an_execution()], lambda: "never")
        return await threads.call([an_execution()], lambda: "done")

    assert in_time(refused_then_done) == "done"
