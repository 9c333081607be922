"""Folding: what statements have changed the counts by is summed, so that reading them stays cheap."""

from __future__ import annotations

from simpleworkflow.maintenance.service import Asks
from simpleworkflow.statements import fold_counts

__all__ = ["Folding"]

# Reading sums what is not folded: a few deltas for each batch of runs, some thousands between two folds, which is a
# matter of milliseconds.  Where many come, it is done each second; where none come, the pauses grow.
PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS = 5.0
PAUSE_SECONDS_MAX = 60.0
MANY = 2000
FOLDED_AT_ONCE = 10_000


class Folding:
    """Folds the deltas of all runs, whoever changed them; where another worker does it, this one does not."""

    name = "folding"

    def __init__(self, link: Asks) -> None:
        self._link = link
        self._pause_seconds = PAUSE_SECONDS
        self._is_behind = False

    async def run_once(self) -> float:
        """Fold what there is; return the seconds until there may be something worth folding."""
        # Part after part while there is more than one: the pause is for what others have folded just now.
        pause_seconds = 0.0 if self._is_behind else PAUSE_SECONDS_MIN / 2
        folded = await self._link.ask(fold_counts(limit=FOLDED_AT_ONCE, pause_seconds=pause_seconds))
        self._is_behind = folded == FOLDED_AT_ONCE
        if self._is_behind:
            return 0.0
        if folded == 0:
            self._pause_seconds = min(PAUSE_SECONDS_MAX, 2 * self._pause_seconds)
        else:
            self._pause_seconds = PAUSE_SECONDS_MIN if folded and folded > MANY else PAUSE_SECONDS
        return self._pause_seconds
