"""The one loop around every service: again when the service says so, with jitter, and never dead of an error."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol, TypeVar

from simpleworkflow.database import Statement
from simpleworkflow.errors import DatabaseUnavailable

__all__ = ["Asks", "Service", "repeat"]

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

    async def run_once(self) -> float:
        """Do what there is to do; return after how many seconds to look again."""


async def repeat(service: Service) -> None:
    """Run ``service`` until cancelled."""
    while True:
        try:
            seconds = await service.run_once()
        except DatabaseUnavailable:
            seconds = RETRY_SECONDS  # its link has said so
        except Exception:  # the edge of a service: logged, and tried again
            logger.exception("%s failed; trying again", service.name)
            seconds = RETRY_SECONDS
        # Later by up to a twentieth, never earlier: the others look at another moment.
        await asyncio.sleep(seconds * random.uniform(1, 1.05))  # noqa: S311
