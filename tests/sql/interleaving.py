"""Two transactions on two real sessions, in every order that their steps can have.

A step that waits for a lock goes on waiting in the thread of its session while the other session's steps go on; the
steps behind it are put off until it has come to its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import psycopg

from builders import Database, connect
from waits import until

Step = Callable[[Database], object]

# What PostgreSQL may answer to a transaction that is not read committed: it is to be repeated as a whole.
SERIALIZATION_FAILURES = ("40001",)


@dataclass
class Transaction:
    """Some steps and how they end; afterwards, what each step answered and whether all of it was committed."""

    steps: Sequence[Step]
    ending: str = "commit"
    isolation: str = "read committed"
    answers: list[object] = field(default_factory=list)
    failure: str | None = None
    is_committed: bool = False

    def calls(self) -> list[Step]:
        """Return what is to be executed one after the other: the steps, then the ending."""
        return [*self.steps, self._end]

    def execute(self, db: Database, call: Step) -> None:
        """Execute one call; after a failure only the ending, as a rollback."""
        try:
            if call == self._end:
                self._end(db)
            elif self.failure is None:
                if not self.answers:
                    db.execute(f"begin isolation level {self.isolation}".encode())
                self.answers.append(call(db))
        except psycopg.Error as error:
            self.failure = error.sqlstate
            if error.sqlstate not in SERIALIZATION_FAILURES or self.isolation == "read committed":
                raise

    def _end(self, db: Database) -> None:
        ending = "rollback" if self.failure else self.ending
        db.execute(ending.encode())
        self.is_committed = ending == "commit"


class Session:
    """A connection that may wait in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.db = connect(url)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._running: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a call is being executed."""
        return self._running is not None and not self._running.done()

    def start(self, transaction: Transaction, call: Step) -> None:
        """Begin to execute a call."""
        self._running = self._thread.submit(transaction.execute, self.db, call)

    def settle(self, observer: Database) -> None:
        """Return when the call has ended or waits for another session; raise what it raised."""
        if self._running is None:
            return
        until(lambda: self._has_ended() or _is_blocked(observer, self.db), "the step ends or waits")
        if not self.is_busy:
            self._running.result()

    def _has_ended(self) -> bool:
        # Most steps end at once; to look for what a step waits for takes as long as the step.
        assert self._running is not None
        wait([self._running], timeout=0.003)
        return not self.is_busy

    def close(self) -> None:
        self._thread.shutdown()
        self.db.close()


def _is_blocked(observer: Database, waiting: Database) -> bool:
    pid = waiting.info.backend_pid
    row = observer.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
    return bool(row and row[0])


def orders(first: int, second: int, *, overlapping: bool = False) -> Iterator[tuple[int, ...]]:
    """Return every order of ``first`` calls of session 0 and ``second`` calls of session 1.

    ``overlapping`` leaves out the two in which one transaction ends before the other begins.
    """
    total = first + second
    places = list(itertools.combinations(range(total), first))
    for chosen in places[1:-1] if overlapping else places:
        yield tuple(0 if place in chosen else 1 for place in range(total))


def play(
    observer: Database, sessions: Sequence[Session], transactions: Sequence[Transaction], order: Sequence[int]
) -> None:
    """Execute the calls of both transactions in ``order``, as far as locks let them."""
    calls = [transaction.calls() for transaction in transactions]
    to_do = list(order)
    while to_do:
        turn = next((turn for turn in to_do if not sessions[turn].is_busy), None)
        assert turn is not None, "a deadlock: both transactions wait for each other"
        to_do.remove(turn)
        sessions[turn].start(transactions[turn], calls[turn].pop(0))
        # First the one that has gone on: what the other waited for may be free now.
        for session in (sessions[turn], sessions[1 - turn]):
            session.settle(observer)
