"""The tallies of all processes of one worker, those that have ended included."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from simpleworkflow.metrics.tally import Figures, Tally

__all__ = ["Tallies"]


class Tallies:
    """What the processes that one heart beats for have counted; another thread may ask for it at any time.

    ``own`` is what the heart's process counts itself.
    """

    def __init__(self, own: Tally | None = None) -> None:
        self.own = own or Tally.create()
        self._turn = threading.Lock()
        self._tallies: dict[Tally, Callable[[], int]] = {}
        self._past = Figures()
        self._ended = 0
        self._beaten_at = monotonic()

    def add(self, tally: Tally, held: Callable[[], int]) -> None:
        """Count in what a process counts; ``held`` tells how many runs it holds now."""
        with self._turn:
            self._tallies[tally] = held

    def retire(self, tally: Tally) -> None:
        """Keep what a process that has ended had counted, and give up its memory."""
        with self._turn:
            if self._tallies.pop(tally, None) is not None:
                figures = tally.figures()
                figures.forget_the_present()
                self._past.add(figures)
                self._ended += 1
        tally.close()

    def beaten(self) -> None:
        """Note that the heart has had its answer."""
        self._beaten_at = monotonic()

    def figures(self) -> Figures:
        """Return what all have counted."""
        with self._turn:
            total = Figures()
            for part in (self._past, self.own.figures(), *(tally.figures() for tally in self._tallies)):
                total.add(part)
            return total

    def held_count(self) -> int:
        """Return how many runs are held now."""
        with self._turn:
            return sum(held() for held in self._tallies.values())

    def process_count(self) -> int:
        """Return how many processes there are."""
        with self._turn:
            return len(self._tallies)

    def ended_count(self) -> int:
        """Return how many processes have ended."""
        return self._ended

    def heartbeat_age_seconds(self) -> float:
        """Return how long ago the heart had its last answer, or began."""
        return monotonic() - self._beaten_at

    def close(self) -> None:
        """Give up all memory."""
        with self._turn:
            for tally in (self.own, *self._tallies):
                tally.close()
            self._tallies.clear()
