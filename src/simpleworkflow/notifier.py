"""Wake-ups: a kindness on top of polling, which is the promise.

Producers notify only when somebody is hungry, that is, holds a certain advisory lock exclusively: NOTIFY in
every producer's transaction would serialise their commits.  One idle worker holds the lock and says on
the channel which patterns it covers; the others sleep on when those cover what came, so one
insert among a hundred idle workers wakes a few of them.  The lock is held on a session of its own, waited
for only briefly (a long wait would pin the horizon of vacuum), and given up as soon as the worker is busy.

Messages on the channel, which is named like the schema:

    wake TYPE ...       runs of these types were recorded, while somebody was hungry
    cancelled ID        a leased run was cancelled
    hungry PATTERN ...  who holds the lock now covers these patterns
    vacant              the lock is free
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql

from simpleworkflow.database import connect_async
from simpleworkflow.errors import WorkflowError
from simpleworkflow.model import matches

__all__ = ["Notifier"]

logger = logging.getLogger("simpleworkflow.notifier")

# A listening session that is half open looks like silence; asking it something shows.
PROBE_SECONDS = 15
PROBE_DEADLINE_SECONDS = 10
LOCK_WAIT = "50ms"
VACANCY_SECONDS = 10.0
RECONNECT_SECONDS_MAX = 10.0
# Those whom the holder does not cover claim after a little while, not all in the same instant.
JITTER_SECONDS = 0.01
MESSAGE_BYTES_MAX = 7000


class Notifier:
    """Listens for one worker process, and is hungry when told to.

    ``on_wake`` is called when runs that the worker handles may be there, ``on_cancelled`` with the id of a
    leased run that was cancelled; both on the loop.  Without a connection it is silent and tries again.
    """

    def __init__(
        self,
        conninfo: str,
        schema: str,
        patterns: Sequence[str],
        *,
        on_wake: Callable[[], None],
        on_cancelled: Callable[[str], None],
    ) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self._patterns = list(patterns)
        self._on_wake = on_wake
        self._on_cancelled = on_cancelled
        self._hungry = asyncio.Event()
        self._sated = asyncio.Event()
        self._sated.set()
        self._vacant = asyncio.Event()
        self._covered: list[str] = []
        self._is_holder = False

    async def run(self) -> None:
        """Listen and be hungry until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again_and_again(self._listen))
            tasks.create_task(self._again_and_again(self._keep_hungry))

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
        conn = await connect_async(self._conninfo, prepare_threshold=None)
        try:
            await conn.execute(sql.SQL("listen {}").format(sql.Identifier(self._schema)))
            self._on_wake()  # for what came while nobody listened
            while True:
                async for notice in conn.notifies(timeout=PROBE_SECONDS):
                    self._receive(notice.payload)
                async with asyncio.timeout(PROBE_DEADLINE_SECONDS):
                    await conn.execute("select 1")
        finally:
            await _close(conn)

    def _receive(self, message: str) -> None:
        word, *values = message.split()
        if word == "cancelled" and values:
            self._on_cancelled(values[0])
        elif word == "wake":
            self._wake_for(values)
        elif word == "hungry":
            self._covered = values
        elif word == "vacant":
            self._covered = []
            self._vacant.set()

    def _wake_for(self, types: Sequence[str]) -> None:
        mine = [
            one for one in types if one == "%" or any(matches(pattern, one) for pattern in self._patterns)
        ]
        if self._is_holder and mine:
            self._on_wake()
        elif any(not any(matches(pattern, one) for pattern in self._covered) for one in mine):
            asyncio.get_running_loop().call_later(random.uniform(0, JITTER_SECONDS), self._on_wake)  # noqa: S311

    # ── being hungry ───────────────────────────────────────────────────────────────────────────────

    async def _keep_hungry(self) -> None:
        await self._hungry.wait()
        conn = await connect_async(self._conninfo, prepare_threshold=None)
        try:
            await conn.execute(f"set lock_timeout = '{LOCK_WAIT}'")
            while True:
                await self._hungry.wait()
                self._vacant.clear()
                if await self._acquire(conn):
                    await self._be_holder(conn)
                else:
                    await self._wait_for_vacancy()
        finally:
            self._is_holder = False
            await _close(conn)

    async def _acquire(self, conn: psycopg.AsyncConnection[Any]) -> bool:
        # Producers in flight hold it shared: wait for them, but not for another holder, who said so.
        verb = "pg_try_advisory_lock" if self._covered else "pg_advisory_lock"
        with suppress(psycopg.errors.LockNotAvailable):
            cursor = await conn.execute(
                f"select {verb}(hashtextextended(%s, 0))".encode(), [f"{self._schema}.hungry"]
            )
            row = await cursor.fetchone()
            return row is not None and row[0] is not False
        return False

    async def _be_holder(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._is_holder = True
        try:
            await conn.execute("select pg_notify(%s, %s)", [self._schema, self._coverage()])
            self._on_wake()  # for what came between the last look and the lock
            while not self._sated.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._sated.wait()
                        break
                async with asyncio.timeout(PROBE_DEADLINE_SECONDS):
                    await conn.execute("select 1")
        finally:
            self._is_holder = False
        await conn.execute(
            "select pg_advisory_unlock(hashtextextended(%s, 0)), pg_notify(%s, 'vacant')",
            [f"{self._schema}.hungry", self._schema],
        )

    def _coverage(self) -> str:
        message = " ".join(["hungry", *self._patterns])
        # A worker of very many types says nothing of them; the others then look for themselves.
        return message if len(message) <= MESSAGE_BYTES_MAX else "hungry"

    async def _wait_for_vacancy(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(VACANCY_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311
                await self._vacant.wait()
        # Not all at once: the first one takes it and says so.
        await asyncio.sleep(random.uniform(0, JITTER_SECONDS))  # noqa: S311

    # ── staying connected ──────────────────────────────────────────────────────────────────────────

    async def _again_and_again(self, session: Callable[[], Coroutine[Any, Any, None]]) -> None:
        failures = 0
        while True:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                await session()
            except (WorkflowError, psycopg.Error, OSError, TimeoutError) as error:
                failures = 0 if loop.time() - started > RECONNECT_SECONDS_MAX else failures + 1
                # The worker itself says that the database is away; here it costs wake-ups only.
                logger.debug("no wake-ups for now", extra={"error": str(error)})
                await asyncio.sleep(random.uniform(0.5, 1) * min(RECONNECT_SECONDS_MAX, 0.2 * 2**failures))  # noqa: S311


async def _close(conn: psycopg.AsyncConnection[Any]) -> None:
    with suppress(psycopg.Error, OSError):
        await conn.close()
