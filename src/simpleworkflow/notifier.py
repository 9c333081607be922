"""Wake-ups: a kindness on top of polling, which is the promise.

Producers notify only when somebody is hungry, that is, holds a certain advisory lock exclusively: NOTIFY in
every producer's transaction would serialise their commits.  One idle worker holds the lock and says on
the channel which patterns it covers; the others sleep on when those cover what came, so one
insert among a hundred idle workers wakes a few of them.  The lock is held on a session of its own, waited
for only briefly (a long wait would pin the horizon of vacuum), and given up as soon as the worker is busy.

Messages on the channel, which is named like the schema:

    wake TYPE ...       runs of these types were recorded, while somebody was hungry
    cancelled ID TOKEN  a leased run was cancelled, in the attempt of this fencing token
    hungry PATTERN ...  who holds the lock now covers these patterns
    vacant              the lock is free
    who                 whoever holds the lock, say so again: somebody came later

Whoever may connect to the database can say any of it, so nothing of it is believed: it makes a worker look.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from simpleworkflow.database import Statement, connect_async, within
from simpleworkflow.model import matches
from simpleworkflow.session import Session

__all__ = ["Notifier", "say_vacant"]

logger = logging.getLogger("simpleworkflow.notifier")

# A listening session that is half open looks like silence; asking it something shows.
PROBE_SECONDS = 15
PROBE_DEADLINE_SECONDS = 10
SESSION = Session(is_pooled=False, statement_seconds=PROBE_DEADLINE_SECONDS)
LOCK_WAIT = "50ms"
LISTENING, HUNGRY = "listening", "hungry"  # the two sessions
# So many failures in a row are no hiccup: then it is said.
FAILURES_TO_SAY = 3
# Who holds the lock may be gone without a word, with its whole host: until somebody tries, runs are found by polling.
VACANCY_SECONDS = 30.0
# Where nobody says that he holds it, producers in flight had it: it is tried for again soon, then less and less often.
RETRY_SECONDS = 0.5
RECONNECT_SECONDS_MAX = 10.0
# Those whom the holder does not cover claim after a little while, not all in the same instant.
JITTER_SECONDS = 0.01
# Who holds the lock answers all who ask at once with one word.
ANSWER_SECONDS = 0.05
MESSAGE_BYTES_MAX = 7000


class Notifier:
    """Listens for one worker process, and is hungry when told to.

    ``on_wake`` is called when runs that the worker handles may be there, ``on_cancelled`` with the id and
    the fencing token of a leased run that was cancelled; both on the loop.  Without a connection it tries
    again, and says so once, unless ``is_database_away``: then the worker has said it.
    """

    def __init__(
        self,
        conninfo: str,
        schema: str,
        patterns: Sequence[str],
        *,
        on_wake: Callable[[], None],
        on_cancelled: Callable[[str, int], None],
        is_database_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._patterns = list(patterns)
        self._on_wake = on_wake
        self._on_cancelled = on_cancelled
        self._is_database_away = is_database_away
        self._said_lost: set[str] = set()
        self._hungry = asyncio.Event()
        self._sated = asyncio.Event()
        self._sated.set()
        self._vacant = asyncio.Event()
        self._asked = asyncio.Event()
        self._is_held = False  # somebody has said so, and what he covers
        self._covered: list[str] = []
        self._is_holder = False

    def services(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to be run until it is cancelled: one listens, one is hungry."""
        return [
            self._again_and_again(LISTENING, self._listen),
            self._again_and_again(HUNGRY, self._keep_hungry),
        ]

    def set_hungry(self, hungry: bool) -> None:
        """Say whether this worker waits for runs."""
        if hungry:
            self._sated.clear()
            self._hungry.set()
        else:
            self._hungry.clear()
            self._sated.set()

    # ── listening ──────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        conn = await connect_async(self._conninfo, session=SESSION, prepare_threshold=None)
        try:
            # For what comes together with the answer to something else.
            conn.add_notify_handler(lambda notice: self._receive(notice.payload))
            listening = conn.execute(sql.SQL("listen {}").format(sql.Identifier(self._schema)))
            await within(conn, PROBE_DEADLINE_SECONDS, listening)
            self._works(LISTENING)
            # What was said while nobody listened is not known: who is hungry, whether anybody is.
            self._say_free()
            self._on_wake()
            while True:
                try:
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._hear(conn)
                except TimeoutError:
                    await within(conn, PROBE_DEADLINE_SECONDS, conn.execute("select 1"))
        finally:
            await _close(conn)

    async def _hear(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Receive what is said on ``conn``, which nobody else may use meanwhile, until its end.

        In the very moment that the socket can be read: by the driver's generator of notifications it took several turns
        of the loop, 0.1 of the 0.15 ms from the server's word to the claim.
        """
        ended = asyncio.get_running_loop().create_future()

        def receive() -> None:
            try:
                conn.pgconn.consume_input()
                while notice := conn.pgconn.notifies():
                    self._receive(notice.extra.decode())
            except Exception as error:  # noqa: BLE001 - it ends the session, which is begun anew
                if not ended.done():
                    ended.set_exception(error)

        receive()  # what had come before anybody listened to the socket
        with _reading(conn, receive):
            await ended

    def _receive(self, message: str) -> None:
        word, *values = message.split() or [""]
        if word == "cancelled" and len(values) == 2 and re.fullmatch("[0-9]{1,19}", values[1]):
            self._on_cancelled(values[0], int(values[1]))
        elif word == "wake":
            self._wake_for(values)
        elif word == "hungry":
            self._is_held, self._covered = True, values
            # Before it the lock may have been free, and nobody was told of what came: the holder looks for its own.
            if not all(any(matches(theirs, mine) for theirs in values) for mine in self._patterns):
                self._wake_soon()
        elif word == "vacant":
            self._say_free()
        elif word == "who":
            self._asked.set()

    def _say_free(self) -> None:
        self._is_held, self._covered = False, []
        self._vacant.set()

    def _wake_for(self, types: Sequence[str]) -> None:
        mine = [
            one for one in types if one == "%" or any(matches(pattern, one) for pattern in self._patterns)
        ]
        if self._is_holder and mine:
            self._on_wake()
        elif any(not any(matches(pattern, one) for pattern in self._covered) for one in mine):
            self._wake_soon()

    def _wake_soon(self) -> None:
        asyncio.get_running_loop().call_later(random.uniform(0, JITTER_SECONDS), self._on_wake)  # noqa: S311

    # ── being hungry ───────────────────────────────────────────────────────────────────────────────

    async def _keep_hungry(self) -> None:
        await self._hungry.wait()
        conn = await connect_async(self._conninfo, session=SESSION, prepare_threshold=None)
        try:
            setting = f"set lock_timeout = '{LOCK_WAIT}'"
            await within(conn, PROBE_DEADLINE_SECONDS, conn.execute(setting.encode()))
            self._works(HUNGRY)
            retry_seconds = RETRY_SECONDS
            while True:
                if not self._hungry.is_set():
                    retry_seconds = RETRY_SECONDS
                    await self._hungry.wait()
                self._vacant.clear()
                if await self._acquire(conn):
                    retry_seconds = RETRY_SECONDS
                    await self._be_holder(conn)
                elif self._is_held:
                    retry_seconds = RETRY_SECONDS
                    await self._wait_for_vacancy(VACANCY_SECONDS)
                else:
                    asking = conn.execute("select pg_notify(%s, 'who')", [self._schema])
                    await within(conn, PROBE_DEADLINE_SECONDS, asking)
                    await self._wait_for_vacancy(retry_seconds)
                    retry_seconds = min(VACANCY_SECONDS, 2 * retry_seconds)
        finally:
            self._is_holder = False
            await _close(conn)

    async def _acquire(self, conn: psycopg.AsyncConnection[Any]) -> bool:
        # Producers in flight hold it shared: wait for them, but not for another holder, who said so.
        verb = "pg_try_advisory_lock" if self._is_held else "pg_advisory_lock"
        with suppress(psycopg.errors.LockNotAvailable):
            question = f"select {verb}(hashtextextended(%s, 0))".encode()
            asking = conn.execute(question, [f"{self._schema}.hungry"])
            cursor = await within(conn, PROBE_DEADLINE_SECONDS, asking)
            row = await cursor.fetchone()
            return row is not None and row[0] is not False
        return False

    async def _be_holder(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._is_holder = True
        try:
            await self._say_hungry(conn)
            self._on_wake()  # for what came between the last look and the lock
            while not self._sated.is_set():
                if not await self._until_sated(conn):
                    await asyncio.sleep(ANSWER_SECONDS)
                    await self._say_hungry(conn)
        finally:
            self._is_holder = False
        leaving = conn.execute(
            "select pg_advisory_unlock(hashtextextended(%s, 0)), pg_notify(%s, 'vacant')",
            [f"{self._schema}.hungry", self._schema],
        )
        await within(conn, PROBE_DEADLINE_SECONDS, leaving)

    async def _say_hungry(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._asked.clear()
        saying = conn.execute("select pg_notify(%s, %s)", [self._schema, self._coverage()])
        await within(conn, PROBE_DEADLINE_SECONDS, saying)

    async def _until_sated(self, conn: psycopg.AsyncConnection[Any]) -> bool:
        """Return True when sated; False after a while, when asked, or when the server says something: its end."""
        with _hearing(conn) as said:
            waits = [asyncio.create_task(event.wait()) for event in (self._sated, self._asked, said)]
            try:
                await asyncio.wait(waits, timeout=PROBE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
        return self._sated.is_set()

    def _coverage(self) -> str:
        message = " ".join(["hungry", *self._patterns])
        # A worker of very many types says nothing of them; the others then look for themselves.
        return message if len(message) <= MESSAGE_BYTES_MAX else "hungry"

    async def _wait_for_vacancy(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.8, 1.2)):  # noqa: S311
                await self._vacant.wait()
        # Not all at once: the first one takes it and says so.
        await asyncio.sleep(random.uniform(0, JITTER_SECONDS))  # noqa: S311

    # ── staying connected ──────────────────────────────────────────────────────────────────────────

    async def _again_and_again(self, name: str, session: Callable[[], Coroutine[Any, Any, None]]) -> None:
        failures = 0
        while True:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                await session()
            except Exception as error:  # noqa: BLE001 - whatever it was, wake-ups shall come back
                failures = 0 if loop.time() - started > RECONNECT_SECONDS_MAX else failures + 1
                if isinstance(error, TimeoutError) or failures >= FAILURES_TO_SAY:
                    self._say_lost(name, error)
                await asyncio.sleep(random.uniform(0.5, 1) * min(RECONNECT_SECONDS_MAX, 0.2 * 2**failures))  # noqa: S311

    def _say_lost(self, name: str, error: Exception) -> None:
        if not self._said_lost and not self._is_database_away():
            logger.warning("wake-ups are lost, runs are found by polling; trying again: %s", error)
            self._said_lost.add(name)

    def _works(self, name: str) -> None:
        if name in self._said_lost:
            logger.warning("wake-ups are back")
            self._said_lost.clear()


def say_vacant(schema: str) -> Statement[None]:
    """Tell idle workers that who held the lock may have died, which nobody else says: they try for it."""
    return Statement("select pg_notify(%s, 'vacant')", (schema,), lambda _: None, is_repeatable=True)


@contextmanager
def _hearing(conn: psycopg.AsyncConnection[Any]) -> Iterator[asyncio.Event]:
    """Yield an event that is set as soon as the server sends something, its end included."""
    said = asyncio.Event()
    with _reading(conn, said.set):
        yield said


@contextmanager
def _reading(conn: psycopg.AsyncConnection[Any], read: Callable[[], object]) -> Iterator[None]:
    """Call ``read`` as soon as the server sends something; nobody else may use the connection meanwhile.

    The driver's own waiting looks ten times a second.
    """
    loop, fd = asyncio.get_running_loop(), conn.fileno()
    loop.add_reader(fd, read)
    try:
        yield
    finally:
        loop.remove_reader(fd)


async def _close(conn: psycopg.AsyncConnection[Any]) -> None:
    with suppress(psycopg.Error, OSError):
        await conn.close()
