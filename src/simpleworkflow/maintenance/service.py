"""The one loop around every service: again when the service says so, with jitter, and never dead of an error."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol, TypeVar

from simpleworkflow.database import Statement
from simpleworkflow.errors import DatabaseUnavailable

__all__ = ["Asks", "Rests", "Service", "repeat"]

logger = logging.getLogger("simpleworkflow.maintenance")

T = TypeVar("T")

RETRY_SECONDS = 1.0


class Asks(Protocol):
    """Whoever can execute a statement on the loop."""

    async def ask(self, statement: Statement[T]) -> T:
        """Return what the statement reads."""


class Service(Protocol):
    """A piece of upkeep.  It is correct however many workers do it at once."""

    name: str
    slack_seconds: float  # so much later than it says it may look again, where the process sleeps until then

    async def run_once(self) -> float:
        """Do what there is to do; return after how many seconds to look again."""


class Rests:
    """The rests of the services of one process: they end when it is awake anyway, so that it need not wake for each.

    To wake costs an idle process more than what it then does: 1 to 3 ms, most of it for memory that has grown cold.
    """

    def __init__(self) -> None:
        self._ends: dict[asyncio.Future[None], float] = {}

    async def rest(self, seconds: float, slack_seconds: float) -> None:
        """Return after ``seconds``, as soon as the process is awake, and ``slack_seconds`` later whatever it does."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._ends[over] = loop.time() + seconds
        timer = loop.call_at(loop.time() + seconds + slack_seconds, _end, over)
        try:
            await over
        finally:
            timer.cancel()
            del self._ends[over]

    def end(self) -> None:
        """Say that the process is awake: the rests whose seconds are over end."""
        now = asyncio.get_running_loop().time()
        for over, end in self._ends.items():
            if end <= now:
                _end(over)


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


async def repeat(service: Service, rests: Rests | None = None) -> None:
    """Run ``service`` until cancelled."""
    rests = rests or Rests()
    while True:
        slack_seconds = 0.0
        try:
            seconds = await service.run_once()
            slack_seconds = service.slack_seconds
        except DatabaseUnavailable:
            seconds = RETRY_SECONDS  # its link has said so
        except Exception:  # the edge of a service: logged, and tried again
            logger.exception("%s failed; trying again", service.name)
            seconds = RETRY_SECONDS
        # Later by up to a twentieth, never earlier: the others look at another moment.
        await rests.rest(seconds * random.uniform(1, 1.05), slack_seconds)  # noqa: S311
