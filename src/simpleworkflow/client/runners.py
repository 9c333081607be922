"""The runners of a client's own connections: connect when needed, retry what may be, check the schema once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import Any, TypeVar

from simpleworkflow.client import verbs
from simpleworkflow.client.idle import CONNECT_PARAMETERS, Idle, begin_anew_after_fork
from simpleworkflow.client.place import Place
from simpleworkflow.client.retrying import Retrying, is_stale, lost_together
from simpleworkflow.client.together import run_together, run_together_async
from simpleworkflow.database import (
    AsyncConnection,
    Statement,
    SyncConnection,
    connect,
    connect_async,
    run,
    run_async,
    run_async_for,
    translated,
    within,
)
from simpleworkflow.errors import DatabaseUnavailable
from simpleworkflow.model import check_integer
from simpleworkflow.resolve import Database
from simpleworkflow.session import Session
from simpleworkflow.statements.checking import act_for

__all__ = ["AsyncRunner", "Runner"]

T = TypeVar("T")

FREE_CONNECTION_SECONDS = 30


class _Connecting:
    """What both runners know of their database."""

    def __init__(self, place: Place, pool_size: int) -> None:
        check_integer("pool_size", pool_size, 1, 10_000)
        self._place = place
        self._pool_size = pool_size
        self._database: Database | None = None
        self._is_checked = False

    @property
    def schema(self) -> str:
        return self._place.schema

    def _retrying(self, statement: Statement[Any]) -> Retrying:
        return Retrying(
            is_repeatable=statement.is_repeatable,
            is_change=statement.is_change,
            reconnects=self._is_checked,
        )

    def _session(self, database: Database) -> Session:
        return Session(is_pooled=database.is_pooled)

    def _none_free(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"none of the client's {self._pool_size} connections became free within "
            f"{FREE_CONNECTION_SECONDS} s; raise pool_size, or call from fewer threads"
        )


class Runner(_Connecting):
    """Execute statements on at most ``pool_size`` connections, from any number of threads."""

    def __init__(self, place: Place, pool_size: int) -> None:
        super().__init__(place, pool_size)
        self._idle: Idle[SyncConnection[Any]] = Idle()
        self._make_locks()
        begin_anew_after_fork(self)

    def _make_locks(self) -> None:
        self._free = threading.Semaphore(self._pool_size)
        self._first = threading.Lock()

    def begin_anew(self) -> None:
        """Forget connections and locks of the process that forked this one."""
        self._idle.leave_to_parent()
        self._idle = Idle()
        self._make_locks()

    def close(self) -> None:
        """Close what rests; the next use connects again."""
        self._idle.close()

    def run(self, statement: Statement[T]) -> T:
        """Execute one statement in a transaction of its own; send it again where that does no harm."""
        self.prepare()
        retrying = self._retrying(statement)
        while True:
            conn = None
            try:
                with self._connection() as conn:
                    return run(conn, statement, self.schema)
            except Exception as error:  # noqa: BLE001 - raised again unless it may be retried
                pause = retrying.pause_after(error, conn)
            time.sleep(pause)

    def run_together(self, statements: Iterator[Statement[list[T]]]) -> list[T]:
        """Execute all statements in one transaction; return their answers, joined."""
        first, second = next(statements, None), next(statements, None)
        if first is None:
            return []
        if second is None:
            return self.run(first)
        self.prepare()
        is_sent = False
        with self._connection() as conn:
            try:
                with translated(), conn.transaction():
                    answers = run_together(conn, chain((first, second), statements), self.schema)
                    is_sent = True
                return answers
            except DatabaseUnavailable as error:
                raise lost_together(error, conn, is_sent=is_sent) from error.__cause__

    def prepare(self) -> None:
        """Find the database and check its schema, unless that has been done."""
        if not self._is_checked:
            with self._first:
                self._check_once()

    def _check_once(self) -> None:
        if self._is_checked:  # by another thread, meanwhile
            return
        self._database = self._database or self._place.find()
        with self._connection() as conn:
            verbs.follow(verbs.check_schema(self.schema), lambda asked: run(conn, asked, self.schema))
        self._is_checked = True

    @contextmanager
    def _connection(self) -> Iterator[SyncConnection[Any]]:
        if not self._free.acquire(timeout=FREE_CONNECTION_SECONDS):
            raise self._none_free()
        try:
            conn = self._idle.take() or self._connect()
            stale = False
            try:
                yield conn
            except BaseException as error:
                stale = is_stale(error)
                raise
            finally:
                self._idle.put_back(conn, is_stale=stale)
        finally:
            self._free.release()

    def _connect(self) -> SyncConnection[Any]:
        assert self._database is not None
        return connect(self._database.conninfo, session=self._session(self._database), **CONNECT_PARAMETERS)


class AsyncRunner(_Connecting):
    """Do what ``Runner`` does, from any number of tasks of one loop; another loop gets other connections."""

    def __init__(self, place: Place, pool_size: int) -> None:
        super().__init__(place, pool_size)
        self._idle: Idle[AsyncConnection[Any]] = Idle()
        self._loop: asyncio.AbstractEventLoop | None = None
        begin_anew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget connections and locks of the process that forked this one."""
        self._idle.leave_to_parent()
        self._idle = Idle()
        self._loop = None

    def close(self) -> None:
        """Close what rests; the next use connects again."""
        self._idle.close()

    async def run(self, statement: Statement[T], *, on_behalf_of: str | None = None) -> T:
        """Execute one statement in a transaction of its own; send it again where that does no harm.

        ``on_behalf_of``: in whose name; the events of what it changes tell it.
        """
        await self.prepare()
        retrying = self._retrying(statement)
        while True:
            conn = None
            try:
                async with self._connection() as conn:
                    if on_behalf_of is None:
                        return await within(conn, None, run_async(conn, statement, self.schema))
                    acting = run_async_for(conn, statement, self.schema, act_for(on_behalf_of))
                    return await within(conn, None, acting)
            except Exception as error:  # noqa: BLE001 - raised again unless it may be retried
                pause = retrying.pause_after(error, conn)
            await asyncio.sleep(pause)

    async def run_together(self, statements: Iterator[Statement[list[T]]]) -> list[T]:
        """Execute all statements in one transaction; return their answers, joined."""
        first, second = next(statements, None), next(statements, None)
        if first is None:
            return []
        if second is None:
            return await self.run(first)
        await self.prepare()
        async with self._connection() as conn:
            return await within(
                conn, None, self._in_one_transaction(conn, chain((first, second), statements))
            )

    async def _in_one_transaction(
        self, conn: AsyncConnection[Any], statements: Iterator[Statement[list[T]]]
    ) -> list[T]:
        is_sent = False
        try:
            with translated():
                async with conn.transaction():
                    answers = await run_together_async(conn, statements, self.schema)
                    is_sent = True
            return answers
        except DatabaseUnavailable as error:
            raise lost_together(error, conn, is_sent=is_sent) from error.__cause__

    async def prepare(self) -> None:
        """Find the database and check its schema, unless that has been done."""
        if self._loop is not asyncio.get_running_loop():
            self._idle.close()
            self._loop = asyncio.get_running_loop()
            self._free = asyncio.Semaphore(self._pool_size)
            self._first = asyncio.Lock()
        if not self._is_checked:
            async with self._first:
                await self._check_once()

    async def _check_once(self) -> None:
        if self._is_checked:  # by another task, meanwhile
            return
        # In a thread: starting the embedded server takes half a second.
        self._database = self._database or await asyncio.to_thread(self._place.find)
        async with self._connection() as conn:
            await verbs.follow_async(
                verbs.check_schema(self.schema),
                lambda asked: within(conn, None, run_async(conn, asked, self.schema)),
            )
        self._is_checked = True

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        free = self._free
        try:
            async with asyncio.timeout(FREE_CONNECTION_SECONDS):
                await free.acquire()
        except TimeoutError:
            raise self._none_free() from None
        try:
            conn = self._idle.take() or await self._connect()
            stale = False
            try:
                yield conn
            except BaseException as error:
                stale = is_stale(error)
                raise
            finally:
                self._idle.put_back(conn, is_stale=stale)
        finally:
            free.release()

    async def _connect(self) -> AsyncConnection[Any]:
        assert self._database is not None
        return await connect_async(
            self._database.conninfo, session=self._session(self._database), **CONNECT_PARAMETERS
        )
