"""Where to look for runs: pure, with the time handed in.

A claim that looks everywhere walks, under a snapshot that somebody holds, over all that was claimed since; and of
hundreds of types it probes each.  So what was found is remembered, as the text the database gave, and the next
claims look only there, from where the last one has come to.  What is not to be seen from there is found by the next
look: they cost at most a twentieth of the time while runs flow, a fifth otherwise; but where the last one brought all
that was asked for, and nothing is left where runs were found, the next one is worth its time at once.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Lanes", "Where"]

WAIT_WHILE_FLOWING = 20
WAIT_OTHERWISE = 4
# Whatever a look has cost, what only a look finds waits no longer than the default poll.
WAIT_SECONDS_MAX = 2.0
# A look of this cost is held back only while runs flow; a wake-up is worth a dearer one if nothing is where runs were.
CHEAP_SECONDS = 0.002
# A look holds back others until its answer comes, or for so long.
ANSWER_SECONDS = 0.5


class Where(NamedTuple):
    """Where one claim looks: in ``lanes`` alone, or everywhere; ``looks`` have been answered by then."""

    lanes: str
    is_look: bool
    looks: int


class Lanes:
    """Knows where runs were found, and when to look everywhere again."""

    def __init__(self) -> None:
        self._lanes = "{}"
        self._look_at = 0.0
        self._looks = 0
        self._was_worth_it = False
        self._is_woken = False
        self._cost = 0.0

    def wake(self) -> None:
        """Note that somebody says there is something: look for it, at once if that is cheap."""
        self._is_woken = True
        if self._cost <= CHEAP_SECONDS:
            self._look_at = 0.0

    def where(self, now: float) -> Where:
        """Return where the next claim shall look."""
        is_look = self.seconds_left(now) <= 0
        if is_look:
            self._look_at = now + ANSWER_SECONDS
            self._is_woken = False
        return Where(self._lanes, is_look, self._looks)

    def seconds_left(self, now: float) -> float:
        """Return how long until a look may be made; 0 or less: now."""
        return self._look_at - now

    def found(
        self, where: Where, lanes: str, look_seconds: float | None, now: float, *, count: int, is_full: bool
    ) -> None:
        """Note where to go on, and of a claim that brought ``count`` runs whether that is all it asked for.

        ``look_seconds`` is what its look has cost, if it was one.
        """
        if look_seconds is not None:
            self._looks += 1
            self._cost = look_seconds
            wait = look_seconds * (WAIT_WHILE_FLOWING if is_full else WAIT_OTHERWISE)
            if look_seconds <= CHEAP_SECONDS and not is_full:
                wait = 0.0
            self._look_at = now + min(max(wait, 0.0), WAIT_SECONDS_MAX)
            self._was_worth_it = is_full
        elif where.looks != self._looks:
            return  # it knew less than the look that was answered meanwhile
        elif (not is_full and self._was_worth_it) or (not count and self._is_woken):
            self._look_at = now
        self._lanes = lanes
