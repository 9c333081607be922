"""One connection of a worker: opened again when it is lost, with a deadline on every call."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.types.string import TextLoader

from simpleworkflow.database import (
    CONNECT_TIMEOUT_SECONDS_MIN,
    Statement,
    connect_async,
    first_line,
    hosts_of,
    run_async,
    within,
)
from simpleworkflow.errors import DatabaseUnavailable
from simpleworkflow.metrics import Tally
from simpleworkflow.resolve import Database
from simpleworkflow.session import Session

__all__ = ["Link", "Outage", "has_no_session"]

logger = logging.getLogger("simpleworkflow.worker")

T = TypeVar("T")

# So that work goes on within two seconds once the database is back, however long it was away.
BACKOFF_SECONDS_MAX = 1.0
SERIALIZATION_ATTEMPTS_MAX = 5
# So many sessions in a row may be lost before any has answered; a server that cannot be reached is said at once.
SESSIONS_LOST_MAX = 2
# The server ends a statement of ours before we cut its connection: a session that waits for a lock would not notice
# that we are gone, and would claim, when it gets the lock, runs that nobody takes.
SERVER_DEADLINE_PART = 0.9


def has_no_session(worker_id: str) -> Statement[bool]:
    """Return whether a worker known dead has no session left in which it might still claim."""
    question = "select pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
    return Statement(question, (worker_id,), lambda rows: rows[0][0], is_repeatable=True)


class Outage:
    """Says once that the database is away, and once that it is back, for all links of a process.

    One link that fails while others have answers is one outage too: they do not end it at every turn.
    ``is_silent``: another process of the same program says it.  ``tally``: where it is counted.
    """

    def __init__(self, *, is_silent: bool = False, tally: Tally | None = None) -> None:
        self._is_silent = is_silent
        self._tally = tally
        self._is_out = False
        self._out: set[Link] = set()

    @property
    def is_on(self) -> bool:
        """Whether the database is away now."""
        return self._is_out

    def began(self, link: Link, error: BaseException) -> None:
        """Log the first error of an outage."""
        if not self._is_out and link not in self._out:
            self._set_out(True)
            if not self._is_silent:
                logger.warning("the database is away; trying again: %s", error)
        self._out.add(link)

    def ended(self, link: Link) -> None:
        """Log the end of an outage: a link that was out has had an answer."""
        if link in self._out:
            self._out.remove(link)
            if self._is_out:
                self._set_out(False)
                if not self._is_silent:
                    logger.warning("the database is back")

    def refused(self) -> None:
        """Count a statement that failed though the database is there."""
        if self._tally is not None:
            self._tally.count_error()

    def _set_out(self, is_out: bool) -> None:
        self._is_out = is_out
        if self._tally is not None and not self._is_silent:
            self._tally.set_away(is_out)


def _reason(error: TimeoutError | psycopg.errors.QueryCanceled) -> str:
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    where = (error.diag.context or "").split("\n", 1)[0]  # while locking what
    return first_line(error) + (f" {where}" if where.startswith("while ") else "")


class Link:
    """A connection that executes statements one at a time and waits for no answer longer than ``deadline_seconds``.

    ``worker_id``: for whom it claims; see ``has_no_session``.
    """

    def __init__(
        self, database: Database, outage: Outage, *, deadline_seconds: float, worker_id: str | None = None
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._outage = outage
        self.deadline_seconds = deadline_seconds
        self._conn: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._failures = 0

    async def ask(self, statement: Statement[T]) -> T:
        """Execute ``statement`` once; what was lost on the way is for the caller to judge.

        Raises:
            DatabaseUnavailable: there is no connection, or no answer in time.
            WorkflowError: the database refused it.
        """
        async with self._lock:
            for attempt in range(SERIALIZATION_ATTEMPTS_MAX):
                try:
                    return await self._ask_once(statement)
                except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                    await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
            return await self._ask_once(statement)

    async def ask_until_answered(self, statement: Statement[T]) -> T:
        """Execute a statement that may be sent twice, again and again until the database answers."""
        while True:
            try:
                return await self.ask(statement)
            except DatabaseUnavailable:
                await self.pause()

    def say_away(self, error: DatabaseUnavailable) -> None:
        """Count a failure that happened on another connection to the same database."""
        self._failures += 1
        self._outage.began(self, error)

    def say_refused(self, error: Exception) -> None:
        """Count a statement that failed though the database is there; log the first of a row of them."""
        if not self._failures:
            logger.warning("a statement failed; trying again: %s", first_line(error))
        self._failures += 1
        self._outage.refused()

    async def pause(self) -> None:
        """Wait a moment before the next try: longer after each failure, with jitter."""
        seconds = min(BACKOFF_SECONDS_MAX, 0.05 * 2 ** min(self._failures, 10))
        await asyncio.sleep(seconds * random.uniform(0.5, 1))  # noqa: S311

    async def close(self) -> None:
        """Close the connection, if there is one."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(psycopg.Error, OSError):
                await conn.close()

    async def _ask_once(self, statement: Statement[T]) -> T:
        try:
            conn = self._conn or await self._connect_in_time()
            asking = run_async(conn, statement, self._database.schema)
            answer = await within(conn, self.deadline_seconds, asking)
        except (TimeoutError, psycopg.errors.QueryCanceled) as error:
            away = DatabaseUnavailable(f"the database does not serve us: {_reason(error)}")
            await self._failed(away)
            raise away from None
        except DatabaseUnavailable as error:
            if self._conn is not None and self._failures < SESSIONS_LOST_MAX:
                # A session that was lost, and is had again at once, is no outage.
                self._failures += 1
                await self.close()
            else:
                await self._failed(error)
            raise
        except asyncio.CancelledError:
            await self.close()  # an answer may still be on its way to whoever asks next
            raise
        self._failures = 0
        self._outage.ended(self)
        return answer

    async def _failed(self, error: DatabaseUnavailable) -> None:
        self.say_away(error)
        await self.close()

    async def _connect_in_time(self) -> psycopg.AsyncConnection[Any]:
        # Each of several hosts gets its part of the deadline, so that a silent one is passed over.
        hosts = hosts_of(self._database.conninfo)
        seconds = max(CONNECT_TIMEOUT_SECONDS_MIN, int(self.deadline_seconds / hosts))
        async with asyncio.timeout(self.deadline_seconds if hosts == 1 else (hosts + 1) * seconds):
            return await self._connect(seconds)

    async def _connect(self, seconds: int) -> psycopg.AsyncConnection[Any]:
        session = Session(
            is_pooled=self._database.is_pooled,
            statement_seconds=SERVER_DEADLINE_PART * self.deadline_seconds,
            worker_id=self._worker_id,
        )
        conn = await connect_async(
            self._database.conninfo, session=session, prepare_threshold=1, connect_timeout=seconds
        )
        self._conn = conn
        # What the hot path reads as text it needs as text.
        for type_name in ("uuid", "jsonb", "json", "timestamptz"):
            conn.adapters.register_loader(type_name, TextLoader)
        return conn
