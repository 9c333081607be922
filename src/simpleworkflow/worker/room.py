"""How many runs to claim now: pure, with the counts handed in."""

from __future__ import annotations

__all__ = ["AHEAD_MAX", "BATCH_MAX", "Room"]

# While runs are short, this many more than the concurrency are claimed ahead, so that an exchange carries hundreds:
# 500 with the default concurrency.  Each costs the server 1.2 ms whatever it carries.  They wait in memory under a
# lease, at most about AHEAD_SECONDS.
AHEAD_MAX = 900
AHEAD_SECONDS = 0.1
BATCH_MAX = 500


class Room:
    """Knows for how many runs a worker has room, by how long its runs take.

    ``claiming`` is how many have been asked for and not been answered; ``is_to_be_empty``: a suspect waits for a
    worker that holds nothing.
    """

    def __init__(self, concurrency: int, slots: int) -> None:
        self._concurrency = concurrency
        self._slots = slots
        self._mean_seconds = 1.0
        self.claiming = 0
        self.is_to_be_empty = False

    def took(self, seconds: float) -> None:
        """Note how long an execution took."""
        self._mean_seconds += 0.05 * (seconds - self._mean_seconds)

    def claim_nothing_ahead(self) -> None:
        """Note that runs are longer than they seemed."""
        self._mean_seconds = 1.0

    def capacity(self) -> int:
        """Return how many runs to hold at most."""
        ahead = self._concurrency * AHEAD_SECONDS / max(self._mean_seconds, 1e-6)
        ahead = min(AHEAD_MAX, int(ahead)) if self._mean_seconds < AHEAD_SECONDS / 5 else 0
        return min(self._concurrency + ahead, self._slots)

    def limit(self, held: int, free_slots: int) -> int:
        """Return how many runs to claim by a worker that holds so many."""
        if self.is_to_be_empty and held + self.claiming > 0:
            return 0
        capacity = self.capacity()
        room = min(capacity - held, free_slots) - self.claiming
        # Half of it at once: the other exchanger shall have its part.
        return max(0, min(room, BATCH_MAX, max(1, capacity // 2) if capacity > 1 else 1))
