"""How far somebody is in the stream of all events.  Pure.

Events are seen in the order of their ids as far as they are committed.  Below the last one seen there may be gaps: ids
that were given out to transactions that had not ended.  A position is that last id and those gaps.  As text it is the
``id`` of an event in the stream, so that who comes back with it gets all that is missing and nothing again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["GAPS_MAX", "Position"]

# More are not held open: who would have to waits until the first are settled.  So a position fits into a header.
GAPS_MAX = 200
TEXT_CHARACTERS_MAX = 7000
_TEXT = re.compile(
    r"(0|[1-9]\d{0,18})(?:~((?:\d{1,19}(?:-\d{1,19})?)(?:,\d{1,19}(?:-\d{1,19})?)*))?", re.ASCII
)


class Position:
    """The last id that was seen, and the gaps below it, each from its first to its last id, in order."""

    def __init__(self, after: int = 0, gaps: list[tuple[int, int]] | None = None) -> None:
        self.after = after
        self.gaps = gaps or []

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that ``text`` stands for.

        Raises:
            ValueError: none.
        """
        found = _TEXT.fullmatch(text) if len(text) <= TEXT_CHARACTERS_MAX else None
        if found is None:
            raise ValueError("expected the id of an event in the stream")
        after, gaps, last = int(found[1]), [], 0
        for one in found[2].split(",") if found[2] else ():
            back_low, _, back_high = one.partition("-")
            low, high = after - int(back_low), after - int(back_high or back_low)
            if not last < low <= high <= after:
                raise ValueError("expected the id of an event in the stream")
            gaps.append((low, high))
            last = high
        if len(gaps) > GAPS_MAX or after >= 2**63:
            raise ValueError("expected the id of an event in the stream")
        return cls(after, gaps)

    def __str__(self) -> str:
        gaps = ",".join(
            f"{self.after - low}" if low == high else f"{self.after - low}-{self.after - high}"
            for low, high in self.gaps
        )
        return f"{self.after}~{gaps}" if gaps else f"{self.after}"

    def take(self, event_id: int, settled: int) -> bool:
        """Pass an event, the next in the order of ids; return False if that would hold too many gaps open.

        Nothing that is not settled by now, an id up to ``settled``, will ever be seen.
        """
        self._settle(min(settled, event_id - 1))
        if event_id <= self.after:
            kept = list(self._without(event_id))
            if len(kept) > GAPS_MAX:
                return False
            self.gaps = kept
            return True
        low = max(self.after, settled) + 1
        if low < event_id:
            if len(self.gaps) >= GAPS_MAX:
                return False
            self.gaps.append((low, event_id - 1))
        self.after = event_id
        return True

    def end(self, settled: int) -> None:
        """Close what is settled, when all events that can be seen have been passed."""
        self._settle(settled)
        self.after = max(self.after, settled)

    def _settle(self, until: int) -> None:
        if self.gaps and self.gaps[0][0] <= until:
            self.gaps = [(max(low, until + 1), high) for low, high in self.gaps if high > until]

    def _without(self, event_id: int) -> Iterator[tuple[int, int]]:
        for low, high in self.gaps:
            if not low <= event_id <= high:
                yield low, high
                continue
            if low < event_id:
                yield low, event_id - 1
            if event_id < high:
                yield event_id + 1, high
