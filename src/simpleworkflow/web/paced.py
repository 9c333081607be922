"""What is asked again and again by everybody who looks, and costs the database something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Generic, TypeVar

__all__ = ["Paced"]

T = TypeVar("T")

# A question that takes longer than this, twice running, rests for a hundred times as long, or for its ``seconds_max``:
# up to there it takes a hundredth of a core, however many look.
CHEAP_SECONDS = 0.01
RESTS_TIMES = 100
REST_SECONDS_MAX = 10.0


class Paced(Generic[T]):
    """An answer for all who look; asked for again after ``seconds``, where that is dear after ``seconds_max``.

    What is cheap and has no ``seconds`` is asked for each time.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[T]], *, seconds: float = 0.0, seconds_max: float = REST_SECONDS_MAX
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._seconds_max = seconds_max
        self._asking = asyncio.Lock()
        self._took = 0.0
        self._ask_at = -inf
        self._answer: T

    async def get(self) -> T:
        """Return the answer; what ``ask`` raises is raised to who had it asked."""
        async with self._asking:
            asked_at = monotonic()
            if asked_at >= self._ask_at:
                self._answer = await self._ask()
                before, self._took = self._took, monotonic() - asked_at
                takes = min(before, self._took)  # not what was slow but once
                rest = min(takes * RESTS_TIMES, self._seconds_max) if takes > CHEAP_SECONDS else 0.0
                self._ask_at = asked_at + max(self._seconds, rest)
            return self._answer
