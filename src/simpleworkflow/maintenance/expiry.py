"""Expiry: runs whose worker stopped extending their lease come back."""

from __future__ import annotations

import logging

from simpleworkflow.maintenance.service import Asks
from simpleworkflow.statements import expire_runs, next_lease_until

__all__ = ["Expiry"]

logger = logging.getLogger("simpleworkflow.maintenance")

LOOK_SECONDS_MIN = 0.05
LOOK_SECONDS_MAX = 5.0


class Expiry:
    """Expires lapsed leases when the next one is due, and looks for shorter ones every half a lease.

    ``lease_seconds`` is how long this worker's own leases are; the others' most likely too.
    """

    name = "expiry"

    def __init__(self, link: Asks, *, lease_seconds: float = 30.0) -> None:
        self._link = link
        self._look_seconds = min(LOOK_SECONDS_MAX, lease_seconds / 2)

    async def run_once(self) -> float:
        """Expire what has lapsed; return the seconds until the next lease may lapse, at most five."""
        if expired := await self._link.ask(expire_runs()):
            logger.warning("runs expired, of workers that stopped extending their leases: %d", len(expired))
        left = await self._link.ask(next_lease_until())
        return self._look_seconds if left is None else min(self._look_seconds, max(LOOK_SECONDS_MIN, left))
