"""The slot table: what one worker process holds, in memory that its supervisor can read.

The worker writes a slot for each run it holds; the supervisor, which runs no user code, extends the leases of
what it finds there and writes back what was cancelled or lost.  So a handler that holds the GIL or
blocks the loop keeps its lease, and asking whether a run is cancelled is a memory read.

A slot is found again by its sequence, which no other occupation of the slot ever has: a verdict that
arrives after the slot changed hands is not taken for the new run's.
"""

from __future__ import annotations

import mmap
import os
import struct
from enum import IntEnum
from multiprocessing import reduction
from typing import Any, NamedTuple

from simpleworkflow.memory import unnamed_file

__all__ = ["HeldSlot", "SlotTable", "Verdict"]

# capacity, verdicts written so far, lease and grace in seconds (0: starting), whether a run held may have a time-out,
# why the worker gave up: its exit code and its last words
_HEADER = struct.Struct("=QQddQQ2000s")
_SLOT = struct.Struct("=QQqdd36s4x")  # sequence (0: free), verdict, token, lease until, time-out at, run id
_WORD = struct.Struct("=Q")
_SEQUENCE_AND_VERDICT = struct.Struct("=QQ")
_TIME = struct.Struct("=d")
_VERDICT_OFFSET = 8
_LEASE_OFFSET = 24
_TERMS_OFFSET = 16
_TIMEOUTS_OFFSET = 32
_LAST_WORDS = struct.Struct("=Q2000s")
_LAST_WORDS_OFFSET = 40


class Verdict(IntEnum):
    """What became of a run while its handler was busy."""

    CANCELLED = 1
    LOST = 2


class HeldSlot(NamedTuple):
    """One run that a worker holds.  Times are those of the monotonic clock; ``timeout_at`` 0 means none."""

    number: int
    sequence: int
    fencing_token: int
    lease_until: float
    timeout_at: float
    run_id: str


class SlotTable:
    """A table of ``capacity`` slots in an unnamed shared file; ``fd`` is what another process attaches."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.capacity: int = _HEADER.unpack_from(self._map)[0]
        self._offsets = [_HEADER.size + index * _SLOT.size for index in range(self.capacity)]
        self._next_sequence = 1

    @classmethod
    def create(cls, capacity: int) -> SlotTable:
        """Return a new, empty table."""
        fd = unnamed_file("simpleworkflow-slots")
        os.ftruncate(fd, _HEADER.size + capacity * _SLOT.size)
        os.pwrite(fd, _HEADER.pack(capacity, 0, 0.0, 0.0, 0, 0, b""), 0)
        return cls(fd)

    def __reduce__(self) -> Any:
        # Only while a child process is being spawned: the table goes along as a duplicate of its file.
        return _attach_duplicate, (reduction.DupFd(self.fd),)

    def close(self) -> None:
        """Give up the mapping and the file."""
        self._map.close()
        os.close(self.fd)

    @property
    def lease_seconds(self) -> float:
        """How long the worker's leases are; 0 while it is starting."""
        seconds: float = _HEADER.unpack_from(self._map)[2]
        return seconds

    @property
    def grace_seconds(self) -> float:
        """How long the worker lets its handlers end by themselves when it stops."""
        seconds: float = _HEADER.unpack_from(self._map)[3]
        return seconds

    # ── the worker's side ──────────────────────────────────────────────────────────────────────────

    def announce(self, *, lease_seconds: float, grace_seconds: float) -> None:
        """Say that the worker has started, and its terms."""
        struct.pack_into("=dd", self._map, _TERMS_OFFSET, lease_seconds, grace_seconds)

    def hold(self, index: int, run_id: str, fencing_token: int, lease_until: float) -> int:
        """Occupy a free slot; return the sequence that names this occupation."""
        offset, sequence = self._offsets[index], self._next_sequence
        self._next_sequence += 1
        _SLOT.pack_into(self._map, offset, 0, 0, fencing_token, lease_until, 0.0, run_id.encode())
        # Last: we may be stopped between two fields, and until now a reader takes the slot for free.
        _WORD.pack_into(self._map, offset, sequence)
        return sequence

    def set_timeout(self, index: int, timeout_at: float) -> None:
        """Tell when the supervisor should end a worker that did not end this run itself."""
        _TIME.pack_into(self._map, self._offsets[index] + _LEASE_OFFSET + 8, timeout_at)
        _WORD.pack_into(self._map, _TIMEOUTS_OFFSET, 1)

    def clear_timeouts(self) -> None:
        """Say that no run is held that has a time-out: there is nothing to look for."""
        _WORD.pack_into(self._map, _TIMEOUTS_OFFSET, 0)

    def give_up(self, exit_code: int, reason: str) -> None:
        """Say that this worker will not start, however often it is tried, and why."""
        _LAST_WORDS.pack_into(self._map, _LAST_WORDS_OFFSET, exit_code, reason.encode()[:2000])

    def free(self, index: int) -> None:
        """Empty a slot: its lease is not extended any more."""
        _WORD.pack_into(self._map, self._offsets[index], 0)

    def verdict(self, index: int, sequence: int) -> Verdict | None:
        """Return what the supervisor found about this occupation of the slot, if anything."""
        occupied, written = _SEQUENCE_AND_VERDICT.unpack_from(self._map, self._offsets[index])
        if occupied == sequence and written >> 2 == sequence:
            return Verdict(written & 3)
        return None

    def verdict_count(self) -> int:
        """Return how many verdicts were written so far: when it grows, look."""
        count: int = _HEADER.unpack_from(self._map)[1]
        return count

    def lease_until(self, index: int) -> float:
        """Return until when, by the monotonic clock, the lease is known to hold."""
        until: float = _TIME.unpack_from(self._map, self._offsets[index] + _LEASE_OFFSET)[0]
        return until

    def lengthen(self, index: int, lease_until: float) -> None:
        """Note that the lease holds until then; it never goes back, since a handler may ask for a long one."""
        if self.lease_until(index) < lease_until:
            _TIME.pack_into(self._map, self._offsets[index] + _LEASE_OFFSET, lease_until)

    # ── the supervisor's side ──────────────────────────────────────────────────────────────────────

    def held(self) -> list[HeldSlot]:
        """Return the runs held now.  A slot that changes while it is read is left for the next time."""
        if self.is_empty():
            return []
        first, second = self._map[_HEADER.size :], self._map[_HEADER.size :]
        slots = []
        for index in range(self.capacity):
            start = index * _SLOT.size
            sequence, _, token, lease_until, timeout_at, run_id = _SLOT.unpack_from(first, start)
            if sequence and first[start : start + _SLOT.size] == second[start : start + _SLOT.size]:
                slots.append(HeldSlot(index, sequence, token, lease_until, timeout_at, run_id.decode()))
        return slots

    def is_empty(self) -> bool:
        """Return whether nothing is held; without reading more than one word of each slot."""
        return not any(self._sequences())

    def held_count(self) -> int:
        """Return how many runs are held now."""
        return sum(1 for sequence in self._sequences() if sequence)

    def _sequences(self) -> list[int]:
        with memoryview(self._map) as whole, whole.cast("Q") as words:
            return words[_HEADER.size // _WORD.size :: _SLOT.size // _WORD.size].tolist()

    def has_timeouts(self) -> bool:
        """Return whether a run held may have a time-out."""
        return bool(_WORD.unpack_from(self._map, _TIMEOUTS_OFFSET)[0])

    def overrun(self, now: float) -> list[HeldSlot]:
        """Return the runs that the worker should have ended by ``now``, and did not."""
        if not self.has_timeouts():
            return []
        return [slot for slot in self.held() if slot.timeout_at and now > slot.timeout_at]

    def has_held(self) -> bool:
        """Return whether the worker has ever claimed a run: a slot that was freed keeps its run's id."""
        return any(self._map[_HEADER.size :])

    def last_words(self) -> tuple[int, str] | None:
        """Return the exit code and the reason of a worker that gave up."""
        code, reason = _LAST_WORDS.unpack_from(self._map, _LAST_WORDS_OFFSET)
        return (code, reason.rstrip(b"\0").decode(errors="replace")) if code else None

    def write_verdict(self, slot: HeldSlot, verdict: Verdict) -> None:
        """Tell the worker what became of a run it holds."""
        _WORD.pack_into(self._map, self._offsets[slot.number] + _VERDICT_OFFSET, slot.sequence << 2 | verdict)
        _WORD.pack_into(self._map, _VERDICT_OFFSET, self.verdict_count() + 1)

    def extend(self, slot: HeldSlot, lease_until: float) -> None:
        """Tell the worker that the lease holds until then.

        A slot that changed hands meanwhile is left alone; should it do so in this very instant, the next
        heartbeat puts it right.
        """
        if _WORD.unpack_from(self._map, self._offsets[slot.number])[0] == slot.sequence:
            self.lengthen(slot.number, lease_until)


def _attach_duplicate(duplicate: Any) -> SlotTable:
    return SlotTable(duplicate.detach())
