"""When to claim next: pure, with the time handed in.

Two exchangers of one process claim, and their answers may arrive in another order than their questions were
sent: what an older answer did not see must not put off what a newer one did.
"""

from __future__ import annotations

import random

__all__ = ["Pace"]

# Runs that come for so long without a pause make a worker busy: producers need not wake it.
BUSY_SECONDS = 0.02
# An idle worker looks again after the poll interval and up to this part of it, or these seconds: later, since to look
# earlier costs a statement, but well within the 250 ms that a start may take longer.  Whoever looked last looks again
# in the first half of it, the others in the last quarter, when they know what it found: as a rule only one looks.
SPREAD_PART = 0.05
SPREAD_SECONDS_MAX = 0.1
LOOKED = (0.0, 0.5)
LOOKED_ON = (0.75, 1.0)


class Pace:
    """Knows when the next claim is due, and whether this worker waits for runs (hungry) or has enough."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._claim_at = 0.0
        self._looked_at = 0.0
        self._busy_since: float | None = None
        self._is_flowing = False
        self.wakes = 0

    def wake(self) -> None:
        """Claim now: something may be due that no answer has told of."""
        self.wakes += 1
        self._claim_at = 0.0

    def may_claim(self, *, is_claiming: bool) -> bool:
        """Return whether to ask for runs while another claim is, or is not, on its way.

        Only while claims come back full are two at once worth it.
        """
        return self._is_flowing or not is_claiming

    def seconds_left(self, now: float) -> float:
        """Return how long to wait before the next claim; 0 or less: it is due."""
        return self._claim_at - now

    def took_some(self, now: float, *, is_full: bool, has_room: bool) -> bool:
        """Note that a claim brought runs, all that it asked for or fewer; return whether we are busy now."""
        self._is_flowing = is_full
        self._claim_at = 0.0
        if is_full:
            self.wakes += 1  # there may be more, which a claim on its way may have looked too early to see
        self._busy_since = now if self._busy_since is None else self._busy_since
        return now - self._busy_since > BUSY_SECONDS or not has_room

    def found_nothing(self, now: float, *, due_in_seconds: float | None, wakes: int) -> None:
        """Note that a claim, sent when there had been ``wakes`` wake-ups, found nothing due."""
        self._busy_since = None
        self._is_flowing = False
        self._looked_at = now
        if wakes != self.wakes:
            return  # woken since: what woke us may have come after the database looked
        wait = self._idle_seconds(LOOKED)
        if due_in_seconds is not None:
            wait = min(wait, max(due_in_seconds, 0.0))
        earlier = self._claim_at if self._claim_at > now else float("inf")
        self._claim_at = min(now + wait, earlier)

    def others_found_nothing(self, looked_at: float, due_at: float | None) -> None:
        """Put off a claim, not one that was woken, for a newer look of another worker that asks what we ask.

        It was sent at ``looked_at`` and found nothing due before ``due_at``: our own would have found the same.
        """
        if self._claim_at == 0.0 or looked_at <= self._looked_at:
            return
        self._looked_at = looked_at
        claim_at = looked_at + self._idle_seconds(LOOKED_ON)
        self._claim_at = claim_at if due_at is None else min(claim_at, due_at)

    def _idle_seconds(self, part: tuple[float, float]) -> float:
        spread = min(SPREAD_SECONDS_MAX, SPREAD_PART * self._poll_seconds)
        return self._poll_seconds + spread * random.uniform(*part)  # noqa: S311
