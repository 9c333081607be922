"""Many statements in one transaction: while the server executes one, the next one is made.

Of a bulk submit's 21 microseconds a run half are the client's (values checked, written as JSON, ids read) and half the
server's; one after the other, each waited for the other.  Not the driver's pipeline: it reads the answers late, cannot
have a pooler's settings before each statement, and a statement that fails takes those behind it along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from simpleworkflow.database import AsyncConnection, Rows, Statement, SyncConnection, run, run_async

__all__ = ["run_together", "run_together_async"]

T = TypeVar("T")


class _Together(Generic[T]):
    """The statement to be executed next, and the answers so far."""

    def __init__(self, statements: Iterator[Statement[list[T]]]) -> None:
        self.answers: list[T] = []
        self._statements = statements
        self._unread: tuple[Statement[list[T]], Rows] | None = None
        self._next: Statement[list[T]] | None = None
        self._error: BaseException | None = None
        self._is_ahead = False

    def go_ahead(self) -> None:
        """Read the last answer and make the next statement; what that raises is for ``next``, not for the driver."""
        try:
            self._is_ahead = True
            self._read()
            self._next = next(self._statements, None)
        except BaseException as error:  # noqa: BLE001 - raised by next
            self._error = error

    def next(self) -> Statement[list[T]] | None:
        """Return the next statement, None after the last one.

        Raises:
            BaseException: whatever making it raised, or reading the answer before.
        """
        if not self._is_ahead:
            self.go_ahead()
        self._is_ahead = False
        if self._error is not None:
            raise self._error
        if self._next is None:
            self._read()
        return self._next

    def note(self, statement: Statement[list[T]], rows: Rows) -> None:
        """Keep an answer, to be read when there is time for it."""
        self._unread = statement, rows

    def _read(self) -> None:
        if self._unread is not None:
            statement, rows = self._unread
            self._unread = None
            self.answers += statement.read(rows)


def run_together(conn: SyncConnection[Any], statements: Iterator[Statement[list[T]]], schema: str) -> list[T]:
    """Execute all statements on ``conn``, in its transaction; return their answers, joined.

    Raises:
        WorkflowError: as for ``run``; and whatever making a statement raises.
    """
    together = _Together(statements)
    while statement := together.next():
        conn.meanwhile = together.go_ahead
        try:
            rows = run(conn, _unread(statement), schema)
        finally:
            conn.meanwhile = None
        together.note(statement, rows)
    return together.answers


async def run_together_async(
    conn: AsyncConnection[Any], statements: Iterator[Statement[list[T]]], schema: str
) -> list[T]:
    """Do what ``run_together`` does, on an async connection."""
    together = _Together(statements)
    while statement := together.next():
        conn.meanwhile = together.go_ahead
        try:
            rows = await run_async(conn, _unread(statement), schema)
        finally:
            conn.meanwhile = None
        together.note(statement, rows)
    return together.answers


def _unread(statement: Statement[Any]) -> Statement[Rows]:
    return Statement(statement.sql, statement.parameters, lambda rows: rows, is_change=statement.is_change)
