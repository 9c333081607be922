"""Open connections at rest, for the runners of both colours.

Not psycopg_pool: its worker threads connect, so that who asks for a connection gets a time-out instead of the
reason, and they are gone in a forked child.  Here the caller connects, in its own thread or task, and what is
shared is a stack.
"""

from __future__ import annotations

import os
import select
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

__all__ = ["CONNECT_PARAMETERS", "Idle", "begin_anew_after_fork"]

C = TypeVar("C", bound="psycopg.BaseConnection[Any]")

REST_SECONDS_MAX = 300
# Data that a dead peer never acknowledges breaks the connection after this time (where libpq knows it).
CONNECT_PARAMETERS = {"tcp_user_timeout": 30_000}


class Idle(Generic[C]):
    """Connections that nobody uses now; the one used last is taken first, the others grow old and are closed."""

    def __init__(self) -> None:
        self._resting: deque[tuple[C, float]] = deque()
        # Runs when the owner is forgotten and when the program ends, so that nobody need call close.
        self._finalizer = weakref.finalize(self, _finish_all, self._resting, os.getpid())

    def take(self) -> C | None:
        """Return an open connection, or None; one that its server has ended is not returned."""
        while self._resting:
            try:
                conn, _ = self._resting.pop()
            except IndexError:  # another thread took the last one
                return None
            # A server that ends a session says so, and a peer that is silent for 25 s fails the kernel's
            # keepalives: either way a socket at rest becomes readable.  It costs 2 us, a round trip 50.
            if not conn.closed and not _is_readable(conn.fileno()):
                return conn
            conn.pgconn.finish()
        return None

    def put_back(self, conn: C, *, is_stale: bool = False) -> None:
        """Keep ``conn`` for the next; close it if it is broken, amid a transaction or of no further use."""
        if is_stale or conn.closed or conn.pgconn.transaction_status != TransactionStatus.IDLE:
            conn.pgconn.finish()
            return
        now = monotonic()
        self._resting.append((conn, now))
        while self._resting[0][1] < now - REST_SECONDS_MAX:
            oldest, _ = self._resting.popleft()
            oldest.pgconn.finish()

    def close(self) -> None:
        """Close all that rest."""
        _finish_all(self._resting, os.getpid())

    def leave_to_parent(self) -> None:
        """Forget the connections without closing them: after a fork, they are the parent's."""
        self._finalizer.detach()
        _of_parents.append(self._resting)


def _finish_all(resting: deque[tuple[Any, float]], pid: int) -> None:
    if pid == os.getpid():
        while resting:
            conn, _ = resting.pop()  # held by its name: dropped, it would warn before it is closed
            conn.pgconn.finish()


def _is_readable(fileno: int) -> bool:
    if hasattr(select, "poll"):  # select.select cannot watch descriptors above 1023
        poll = select.poll()
        poll.register(fileno, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fileno], [], [], 0)[0])


# ── fork ───────────────────────────────────────────────────────────────────────────────────────────


class Forkable(Protocol):
    """Something whose threads, locks and connections belong to one process."""

    def begin_anew(self) -> None:
        """Forget them, without touching them."""


_of_parents: list[object] = []
_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def begin_anew_after_fork(forkable: Forkable) -> None:
    """Call ``forkable.begin_anew()`` in every child that this process forks while ``forkable`` lives."""
    _forkables.add(forkable)


def _begin_anew() -> None:
    for forkable in list(_forkables):
        forkable.begin_anew()


_register: Callable[..., object] | None = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_begin_anew)
