"""The board: what the workers of one supervisor have looked for and not found, so that not each has to look.

It is knowledge, no leadership: "whoever looked at that moment found nothing, and there will be nothing before this
one".  Nobody is entitled to look or waits for somebody who does; a worker that sees nothing new on the board by the
time that its own look is due looks itself.  So one that hangs, or is killed, holds up nobody.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from typing import NamedTuple

__all__ = ["FOLDS", "LEASES", "RUNS", "Board", "Look"]

# One place for each kind of look.  Each has three words: both times, and a check, by which a reader knows what was
# written for other questions than its own, or by two writers at once: both are as if nothing had been written.
RUNS, LEASES, FOLDS = 0, 1, 2
_WORDS = 3
_SIZE = (FOLDS + 1) * _WORDS * 8
_TIMES = struct.Struct("=dd")
_BITS = struct.Struct("=QQ")


class Look(NamedTuple):
    """A look that was sent at ``looked_at`` and left nothing; ``next_at``: when there may be something, 0 if unknown.

    Times are those of the monotonic clock, which the processes of one machine share.
    """

    looked_at: float
    next_at: float


class Board:
    """A few words of memory that some workers share; ``fd`` is what another process attaches, if it has one."""

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> Board:
        """Return a board that other processes can attach; where the system has no such memory, one for us alone."""
        if not hasattr(os, "memfd_create"):
            return cls()
        fd = os.memfd_create("simpleworkflow-board")
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    def note(self, kind: int, question: bytes, look: Look) -> None:
        """Write down what was found, for those who ask the same ``question``."""
        first = kind * _WORDS
        looked, following = _BITS.unpack(_TIMES.pack(*look))
        # A store of an aligned word is seen whole or not at all.
        self._words[first] = looked
        self._words[first + 1] = following
        self._words[first + 2] = looked ^ following ^ _key(question)

    def read(self, kind: int, question: bytes) -> Look | None:
        """Return the last look that somebody wrote down for the same ``question``; None: none that can be read."""
        looked, following, check = self._words[kind * _WORDS : (kind + 1) * _WORDS]
        if looked ^ following ^ _key(question) != check:
            return None
        return Look(*_TIMES.unpack(_BITS.pack(looked, following)))

    def close(self) -> None:
        """Give up the memory and its file."""
        self._words.release()
        self._map.close()
        if self.fd >= 0:
            os.close(self.fd)


def _key(question: bytes) -> int:
    # Not ``hash``, which differs between processes.
    return int.from_bytes(hashlib.blake2b(question, digest_size=8).digest(), "little")
