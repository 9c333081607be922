"""Expiry: runs whose worker stopped extending their lease come back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from simpleworkflow.maintenance.board import LEASES, Board, Look
from simpleworkflow.maintenance.service import Asks
from simpleworkflow.statements import expire_runs, next_lease_until, next_upkeep

__all__ = ["Expiry"]

logger = logging.getLogger("simpleworkflow.maintenance")

LOOK_SECONDS_MIN = 0.05
LOOK_SECONDS_MAX = 5.0
# The next look comes after the first of these parts of the seconds that it may take, where the process is awake
# then, and after both where it sleeps: with what rests are longer by chance, still within all of them.
PAUSE_PART, SLACK_PART = 0.65, 0.3


class Expiry:
    """Expires lapsed leases when the next one is due, and looks for shorter ones within half a lease.

    ``lease_seconds`` is how long this worker's own leases are; the others' most likely too.  What another worker on
    the ``board``, with leases as long, has found in the meantime need not be asked again.  ``on_expired`` is called
    with how many runs came back: whose host is gone may have been the one who was to be woken for them.
    ``on_operations`` is called when there are operations to carry out, which the same look tells.
    """

    name = "expiry"

    def __init__(
        self,
        link: Asks,
        *,
        lease_seconds: float = 30.0,
        board: Board | None = None,
        on_expired: Callable[[int], None] = lambda _: None,
        on_operations: Callable[[], None] | None = None,
    ) -> None:
        self._link = link
        self._on_expired = on_expired
        self._on_operations = on_operations
        self._look_seconds = min(LOOK_SECONDS_MAX, lease_seconds / 2)
        self._board = board or Board()
        self._pause_seconds = PAUSE_PART * self._look_seconds
        self._question = f"{self._look_seconds}".encode()
        self.slack_seconds = 0.0

    async def run_once(self) -> float:
        """Expire what has lapsed; return the seconds until the next lease may lapse, at most five."""
        sent_at = monotonic()
        look = self._board.read(LEASES, self._question)
        if look and look.next_at > sent_at:
            self._note_slack(look)
            return min(look.next_at - sent_at, self._look_seconds)
        left = await self._look()
        if left is not None and left <= 0:  # else there is nothing to expire, and one question was enough
            left = await self._expire()
        seconds = self._pause_seconds
        if left is not None and left < self._look_seconds:
            # One that lapses soon is looked for when it does, or first a little sooner than others would be.
            seconds = max(LOOK_SECONDS_MIN, min(left, 0.9 * seconds))
        look = Look(sent_at, sent_at + seconds)
        self._board.note(LEASES, self._question, look)
        self._note_slack(look)
        return seconds

    def _note_slack(self, look: Look) -> None:
        is_soon = look.next_at - look.looked_at < 0.95 * self._pause_seconds
        self.slack_seconds = 0.0 if is_soon else SLACK_PART * self._look_seconds

    async def _look(self) -> float | None:
        if self._on_operations is None:
            return await self._link.ask(next_lease_until())
        left, has_operations = await self._link.ask(next_upkeep())
        if has_operations:
            self._on_operations()
        return left

    async def _expire(self) -> float | None:
        if expired := await self._link.ask(expire_runs()):
            logger.warning("runs expired, of workers that stopped extending their leases: %d", len(expired))
            self._on_expired(len(expired))
        return await self._link.ask(next_lease_until())
