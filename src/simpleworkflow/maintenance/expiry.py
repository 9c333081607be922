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
    """Expires lapsed leases when the next one is due, and looks every few seconds for shorter ones."""

    name = "expiry"

    def __init__(self, link: Asks) -> None:
        self._link = link

    async def run_once(self) -> float:
        """Expire what has lapsed; return the seconds until the next lease may lapse, at most five."""
        if expired := await self._link.ask(expire_runs()):
            logger.warning("expired %d runs of workers that stopped extending them", len(expired))
        left = await self._link.ask(next_lease_until())
        return LOOK_SECONDS_MAX if left is None else min(LOOK_SECONDS_MAX, max(LOOK_SECONDS_MIN, left))
