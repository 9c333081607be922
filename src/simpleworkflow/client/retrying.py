"""Whether a statement that failed on a connection of our own may be sent again."""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from simpleworkflow.errors import DatabaseUnavailable

__all__ = ["Retrying", "answer_lost", "is_stale", "lost_together"]

# Long enough in sum for a server that restarts fast, short enough that a caller is told within two seconds.
PAUSES_SECONDS = (0.02, 0.1, 0.3, 0.8)
# A try that itself took long (a server that is silent, no free connection) is the last one.
TRYING_SECONDS_MAX = 5

# Refused as a whole, so certain not to have happened: serialization failure, deadlock, and a server that has
# become a read-only standby.
_ROLLED_BACK = ("40001", "40P01", "25006")


class HasClosed(Protocol):
    """A connection, as far as this module needs to know one."""

    @property
    def closed(self) -> bool:
        """Whether it is closed or broken."""


class Retrying:
    """The tries of one statement.

    ``is_repeatable``: it may be sent again although its answer was lost.  ``is_change``: it is more than a
    question.  ``reconnects``: a connection could be had before, so that failing to get one now is an outage that
    may pass, not a wrong address.
    """

    def __init__(self, *, is_repeatable: bool, is_change: bool, reconnects: bool) -> None:
        self._is_repeatable = is_repeatable
        self._is_change = is_change
        self._reconnects = reconnects
        self._is_unknown = False
        self._pauses = iter(PAUSES_SECONDS)
        self._began = monotonic()

    def pause_after(self, error: Exception, conn: HasClosed | None) -> float:
        """Return how many seconds to wait before the next try; ``conn`` is None if none could be had.

        Raises:
            DatabaseUnavailable: there is no next try; the message says what is known of the statement.
            Exception: ``error`` itself, where trying again is of no use.
        """
        pause = next(self._pauses, None) if self._may_repeat(error, conn) else None
        if pause is not None and monotonic() - self._began <= TRYING_SECONDS_MAX:
            return pause
        # An answer that one of the tries has lost stays lost, whatever the last one met.
        if self._is_unknown and isinstance(error, DatabaseUnavailable):
            raise answer_lost(error) from error
        raise error

    def _may_repeat(self, error: Exception, conn: HasClosed | None) -> bool:
        if sqlstate_of(error) in _ROLLED_BACK:
            return True
        if conn is None:
            return isinstance(error, DatabaseUnavailable) and self._reconnects
        if not conn.closed:
            return False
        self._is_unknown |= self._is_change
        return self._is_repeatable and isinstance(error, DatabaseUnavailable)


def answer_lost(error: Exception) -> DatabaseUnavailable:
    """Return the error that says that nobody knows whether the statement was carried out."""
    return DatabaseUnavailable(
        "the connection was lost before the answer came, so it is unknown whether the change was recorded; "
        f"with an idempotency key a submission can be repeated ({error})",
        is_unknown=True,
    )


def lost_together(error: DatabaseUnavailable, conn: HasClosed, *, is_sent: bool) -> DatabaseUnavailable:
    """Return the error for a lost transaction of several statements; ``is_sent``: its commit had been sent."""
    if not conn.closed:
        return error
    if is_sent:
        return answer_lost(error)
    return DatabaseUnavailable(
        f"the connection was lost before the commit, so none of the runs was recorded ({error})"
    )


def is_stale(error: BaseException) -> bool:
    """Return whether a connection is of no use after ``error``, although it is open: its server is read-only."""
    return sqlstate_of(error) == "25006"


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error, or of the driver's error that it was made from."""
    return getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)
