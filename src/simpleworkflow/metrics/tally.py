"""The tally: what one worker process has counted, in memory that whoever serves the metrics can read.

The worker writes it, once for each batch and without locks; the supervisor, or the process beside ``worker.run()``,
reads it.  So a handler that holds the GIL hides no figure, and what a process has counted outlives it.  Counts only
grow.  A reader may see the words of one batch half written: the rest is there at its next look.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from simpleworkflow.memory import unnamed_file
from simpleworkflow.statements import Claimed, Finished

__all__ = ["BOUNDS_SECONDS", "COUNTS", "OTHER", "TYPES_MAX", "Figures", "Spread", "Tally", "TypeFigures"]

# The types beyond so many are counted together, so that whoever makes up types makes no new series.
TYPES_MAX = 100
OTHER = "other"
# The upper bounds of the buckets of both histograms: from a run that waits for nothing to one of hours.
BOUNDS_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
COUNTS = ("claimed", "succeeded", "failed", "retried", "released", "cancelled", "lost", "refused")
_CLAIMED, _SUCCEEDED, _FAILED, _RETRIED, _RELEASED, _CANCELLED, _LOST, _REFUSED = range(len(COUNTS))
_ENDS = {"succeeded": _SUCCEEDED, "failed": _FAILED, "pending": _RETRIED}

# The head: how many types have a place, what the process can hold, and what it has counted without a type.
_TYPES, _CAPACITY, _EXPIRED, _ERRORS, _OUTAGES, _IS_AWAY = range(6)
_HEAD_WORDS = 8
_NAME_WORDS = 25  # a type has at most 200 characters, all of one byte
_NAME_BYTES = _NAME_WORDS * 8
_BUCKETS = len(BOUNDS_SECONDS) + 1
# After the name: the counts; then of each histogram the buckets and the sum.
_WAIT = _NAME_WORDS + len(COUNTS)
_RUN = _WAIT + _BUCKETS + 1
_PLACE_WORDS = _RUN + _BUCKETS + 1
_WORDS = _HEAD_WORDS + (TYPES_MAX + 1) * _PLACE_WORDS


@dataclass(slots=True)
class Spread:
    """A histogram: how many fell into each bucket (the last one has no bound), and the sum of all, in seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    sum_seconds: float = 0.0

    def add(self, other: Spread) -> None:
        """Add another one."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.sum_seconds += other.sum_seconds


@dataclass(slots=True)
class TypeFigures:
    """What was counted of one type: by the names of ``COUNTS``; how long its runs were due, and how long they took."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    wait: Spread = field(default_factory=Spread)
    run: Spread = field(default_factory=Spread)

    def add(self, other: TypeFigures) -> None:
        """Add what was counted elsewhere."""
        for name, count in other.counts.items():
            self.counts[name] += count
        self.wait.add(other.wait)
        self.run.add(other.run)


@dataclass(slots=True)
class Figures:
    """What one process has counted, or several together.  ``types`` has an entry ``other`` for those beyond 100."""

    capacity: int = 0
    expired: int = 0
    errors: int = 0
    outages: int = 0
    away: int = 0
    types: dict[str, TypeFigures] = field(default_factory=dict)

    def add(self, other: Figures) -> None:
        """Add what another process has counted."""
        self.capacity += other.capacity
        self.expired += other.expired
        self.errors += other.errors
        self.outages += other.outages
        self.away += other.away
        for name, figures in other.types.items():
            is_known = name in self.types or len(self.types) < TYPES_MAX
            self.types.setdefault(name if is_known else OTHER, TypeFigures()).add(figures)

    def forget_the_present(self) -> None:
        """Keep what was counted, and drop what was only so at the moment: the process has ended."""
        self.capacity = self.away = 0


class Tally:
    """What one process counts; ``fd`` is what another process attaches.  Only one thread of one process writes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _WORDS * 8)
        self._words = memoryview(self._map).cast("Q")
        self._sums = memoryview(self._map).cast("d")
        self._places: dict[str, int] = {}

    @classmethod
    def create(cls) -> Tally:
        """Return a new one, in which nothing is counted."""
        fd = unnamed_file("simpleworkflow-tally")
        os.ftruncate(fd, _WORDS * 8)
        return cls(fd)

    def close(self) -> None:
        """Give up the memory and its file."""
        self._words.release()
        self._sums.release()
        self._map.close()
        os.close(self.fd)

    # ── the process that counts ────────────────────────────────────────────────────────────────────

    def set_capacity(self, runs: int) -> None:
        """Say how many runs the process executes at once."""
        self._words[_CAPACITY] = runs

    def count_claimed(self, claimed: Sequence[Claimed]) -> None:
        """Count runs that were claimed, and how long each had been due."""
        # By type first: what is done for each run of a batch is what the metrics cost.
        dues: dict[str, list[float | None]] = {}
        for one in claimed:
            if (same := dues.get(one.type)) is None:
                same = dues[one.type] = []
            same.append(one.due_in_seconds)
        for type_, due_in_seconds in dues.items():
            place = self._place(type_)
            self._words[place + _NAME_WORDS + _CLAIMED] += len(due_in_seconds)
            waits = [max(0.0, -seconds) for seconds in due_in_seconds if seconds is not None]
            self._add_to_histogram(place + _WAIT, waits)

    def count_finished(self, finished: Sequence[Finished], refused: Collection[str]) -> None:
        """Count attempts whose end the database has recorded; those it ``refused`` as such."""
        took: dict[tuple[str, int], list[float]] = {}
        for id_, _, status, _, _, _, type_, seconds, is_last in finished:
            end = _REFUSED if id_ in refused else _FAILED if is_last else _ENDS[status]
            if (same := took.get((type_, end))) is None:
                same = took[type_, end] = []
            same.append(seconds)
        for (type_, end), run_seconds in took.items():
            place = self._place(type_)
            self._words[place + _NAME_WORDS + end] += len(run_seconds)
            self._add_to_histogram(place + _RUN, run_seconds)

    def count_released(self, type_: str) -> None:
        """Count a run that was given back untried, or unfinished at the stop."""
        self._words[self._place(type_) + _NAME_WORDS + _RELEASED] += 1

    def count_cancelled(self, type_: str) -> None:
        """Count an attempt that ended because its run was cancelled."""
        self._words[self._place(type_) + _NAME_WORDS + _CANCELLED] += 1

    def count_lost(self, type_: str) -> None:
        """Count an attempt that ended because its lease was lost."""
        self._words[self._place(type_) + _NAME_WORDS + _LOST] += 1

    def count_expired(self, runs: int) -> None:
        """Count runs taken from workers that stopped extending their leases, or died."""
        self._words[_EXPIRED] += runs

    def count_error(self) -> None:
        """Count a statement that failed although the database was there."""
        self._words[_ERRORS] += 1

    def set_away(self, is_away: bool) -> None:
        """Say whether the database is away; count the outage when it begins."""
        self._words[_IS_AWAY] = is_away
        self._words[_OUTAGES] += is_away

    def _place(self, type_: str) -> int:
        place = self._places.get(type_)
        if place is not None:
            return place
        number = self._words[_TYPES]
        if number == TYPES_MAX:  # not remembered either: they may be without end
            return _HEAD_WORDS + TYPES_MAX * _PLACE_WORDS
        place = self._places[type_] = _HEAD_WORDS + number * _PLACE_WORDS
        name = type_.encode()[:_NAME_BYTES]
        self._map[place * 8 : place * 8 + len(name)] = name
        self._words[_TYPES] = number + 1  # last: until now a reader sees no such type
        return place

    def _add_to_histogram(self, first: int, seconds: list[float]) -> None:
        """Add to the buckets that begin at the word ``first``."""
        seconds.sort()
        below = 0
        for bucket, bound in enumerate(BOUNDS_SECONDS):
            if below == len(seconds):
                break
            up_to = bisect_right(seconds, bound, below)
            self._words[first + bucket] += up_to - below
            below = up_to
        self._words[first + _BUCKETS - 1] += len(seconds) - below
        self._sums[first + _BUCKETS] += sum(seconds)

    # ── whoever serves the metrics ─────────────────────────────────────────────────────────────────

    def figures(self) -> Figures:
        """Return what was counted until now."""
        words = self._words
        found = Figures(words[_CAPACITY], words[_EXPIRED], words[_ERRORS], words[_OUTAGES], words[_IS_AWAY])
        for number in range(words[_TYPES]):
            place = _HEAD_WORDS + number * _PLACE_WORDS
            name = self._map[place * 8 : place * 8 + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
            found.types[name] = self._type_figures(place)
        others = self._type_figures(_HEAD_WORDS + TYPES_MAX * _PLACE_WORDS)
        if any(others.counts.values()):
            found.types.setdefault(OTHER, TypeFigures()).add(others)
        return found

    def _type_figures(self, place: int) -> TypeFigures:
        counts = self._words[place + _NAME_WORDS : place + _WAIT]
        return TypeFigures(
            dict(zip(COUNTS, counts, strict=True)),
            self._spread(place + _WAIT),
            self._spread(place + _RUN),
        )

    def _spread(self, first: int) -> Spread:
        return Spread(list(self._words[first : first + _BUCKETS]), self._sums[first + _BUCKETS])
