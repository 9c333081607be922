"""Operations: what an operator asked to be done to all the runs that a filter matches is carried out here."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

from simpleworkflow.maintenance.service import Asks
from simpleworkflow.statements import Carried, carry_operation

__all__ = ["CHUNK_RUNS", "LEASE_SECONDS", "Operations", "rest_seconds"]

logger = logging.getLogger("simpleworkflow.maintenance")

# A chunk of so many takes some 8 ms: nobody waits long for what it has locked, for its commit, or for its stop.
CHUNK_RUNS = 200
# Who has carried out a chunk and is silent for so long is taken for dead, and another goes on.
LEASE_SECONDS = 5.0
# Three quarters of the time are left to the claims.
REST_PART, REST_SECONDS_MIN = 3.0, 0.005


class Operations:
    """Carries out operations, chunk after chunk, when ``wake`` says that there are some, until there are none.

    However many do it at once, one carries out an operation at a time; should it die, another goes on within seconds.
    ``look_seconds``: look as often without being told (None: only when told; the look of ``Expiry`` tells it).
    """

    name = "operations"
    slack_seconds = 0.0  # it waits by itself

    def __init__(self, link: Asks, carrier: str, *, look_seconds: float | None = None) -> None:
        self._link = link
        self._carrier = carrier
        self._look_seconds = look_seconds
        self._is_wanted = asyncio.Event()
        self._logged = ("", "")

    def wake(self) -> None:
        """Say that there is something to carry out."""
        self._is_wanted.set()

    async def run_once(self) -> float:
        """Wait until there may be something, and carry it out; return 0: then wait again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_seconds):
                await self._is_wanted.wait()
        self._is_wanted.clear()
        while True:
            started = monotonic()
            carried = await self._link.ask(
                carry_operation(self._carrier, limit=CHUNK_RUNS, lease_seconds=LEASE_SECONDS)
            )
            if carried is None:
                return 0.0
            self._log(carried)
            await asyncio.sleep(rest_seconds(monotonic() - started))

    def _log(self, carried: Carried) -> None:
        said = (str(carried.operation_id), carried.state)
        if said != self._logged:
            self._logged = said
            logger.info("operation %s: %s, changed %d runs", *said, carried.changed)


def rest_seconds(chunk_seconds: float) -> float:
    """Return how long to rest after a chunk that took so long: longer than it, so that claims hardly notice it."""
    return max(REST_SECONDS_MIN, REST_PART * chunk_seconds)
