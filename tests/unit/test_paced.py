"""How often the server asks what everybody who looks wants to know."""

from __future__ import annotations

import asyncio

import pytest

from simpleworkflow.web import paced
from simpleworkflow.web.paced import Paced


class Question:
    """One that takes so long each time, by a clock that only moves when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *takes: float) -> None:
        self.now, self.asked = 1000.0, 0
        self._takes = list(takes)
        monkeypatch.setattr(paced, "monotonic", lambda: self.now)

    async def ask(self) -> int:
        self.asked += 1
        self.now += self._takes.pop(0) if len(self._takes) > 1 else self._takes[0]
        return self.asked


def test_what_is_cheap_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(monkeypatch, 0.005)
    answer = Paced(question.ask)

    assert [asyncio.run(answer.get()) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_what_is_dear_rests_a_hundred_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(monkeypatch, 0.05)
    answer = Paced(question.ask)

    async def look() -> list[int]:
        found = [await answer.get() for _ in range(3)]
        question.now += 4.9
        found.append(await answer.get())
        question.now += 0.1
        return [*found, await answer.get()]

    assert asyncio.run(look()) == [1, 2, 2, 2, 3]


def test_what_was_slow_once_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(monkeypatch, 0.001, 3.0, 0.001)
    answer = Paced(question.ask)

    assert [asyncio.run(answer.get()) for _ in range(4)] == [1, 2, 3, 4]


def test_nothing_rests_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(monkeypatch, 9.0)
    answer = Paced(question.ask)

    async def look() -> list[int]:
        found = [await answer.get() for _ in range(3)]
        question.now += 1.1  # it took nine seconds of the ten
        return [*found, await answer.get()]

    assert asyncio.run(look()) == [1, 2, 2, 3]


def test_all_who_ask_at_once_get_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(monkeypatch, 0.001)
    answer = Paced(question.ask, seconds=5)

    async def look() -> list[int]:
        return await asyncio.gather(*(answer.get() for _ in range(10)))

    assert set(asyncio.run(look())) == {1}
    question.now += 5
    assert asyncio.run(answer.get()) == 2


def test_a_question_that_failed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("away")]

    async def ask() -> str:
        if failures:
            raise failures.pop()
        return "here"

    answer = Paced(ask, seconds=5)

    with pytest.raises(OSError, match="away"):
        asyncio.run(answer.get())
    assert asyncio.run(answer.get()) == "here"
