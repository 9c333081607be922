"""Folding: what statements have changed the counts by is summed, so that reading them stays cheap."""

from __future__ import annotations

from time import monotonic

from simpleworkflow.maintenance.board import FOLDS, Board, Look
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
    """Folds the deltas of all runs, whoever changed them; where another worker does it, this one does not.

    What another on the ``board`` has folded just now need not be looked for again.
    """

    name = "folding"

    def __init__(self, link: Asks, *, board: Board | None = None) -> None:
        self._link = link
        self._board = board or Board()
        self._is_behind = False
        self.slack_seconds = 0.0

    async def run_once(self) -> float:
        """Fold what there is; return the seconds until there may be something worth folding."""
        sent_at = monotonic()
        look = self._board.read(FOLDS, b"")
        if look and look.next_at > sent_at and not self._is_behind:
            self.slack_seconds = (look.next_at - look.looked_at) / 2
            return look.next_at - sent_at
        # Part after part while there is more than one: the pause is for what others have folded just now.
        pause_seconds = 0.0 if self._is_behind else PAUSE_SECONDS_MIN / 2
        folded = await self._link.ask(fold_counts(limit=FOLDED_AT_ONCE, pause_seconds=pause_seconds))
        self._is_behind = folded == FOLDED_AT_ONCE
        if self._is_behind:
            self.slack_seconds = 0.0
            return 0.0
        seconds = PAUSE_SECONDS
        if folded == 0:
            seconds = min(PAUSE_SECONDS_MAX, 2 * (look.next_at - look.looked_at if look else PAUSE_SECONDS))
        elif folded and folded > MANY:
            seconds = PAUSE_SECONDS_MIN
        self._board.note(FOLDS, b"", Look(sent_at, sent_at + seconds))
        self.slack_seconds = seconds / 2
        return seconds
