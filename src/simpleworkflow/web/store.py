"""The server's database: a bounded number of connections, and an end to every question."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from simpleworkflow.client import overseeing, verbs
from simpleworkflow.client.place import Place
from simpleworkflow.client.runners import AsyncRunner
from simpleworkflow.database import Statement, connect, cut_after
from simpleworkflow.health import Finding, examine, examine_path
from simpleworkflow.model import Stats, TypeSummary
from simpleworkflow.resolve import Database
from simpleworkflow.session import Session
from simpleworkflow.statements import look_due
from simpleworkflow.summaries import WorkerSummary
from simpleworkflow.web.paced import Paced

__all__ = ["REQUEST_SECONDS_MAX", "Store"]

T = TypeVar("T")

REQUEST_SECONDS_MAX = 10.0
# The server itself ends a statement before we cut its connection, so that nothing goes on that nobody waits for.
STATEMENT_SECONDS_MAX = 9.0
LONG_SECONDS = 300.0  # what is long for `wf doctor` by default
# An examination asks some twenty questions, some of them of every run that waits.
EXAMINED_SECONDS, EXAMINED_SECONDS_MAX = 5.0, 20.0
WORKERS_SHOWN, HOLDS_SHOWN = 500, 10


class _Runner(AsyncRunner):
    def _session(self, database: Database) -> Session:
        return Session(is_pooled=database.is_pooled, statement_seconds=STATEMENT_SECONDS_MAX)


class Store:
    """Carries plans out on at most ``pool_size`` connections, each within ``REQUEST_SECONDS_MAX``."""

    def __init__(self, database_url: str | None, schema: str | None, pool_size: int) -> None:
        self._place = Place(database_url, schema)
        self._runner = _Runner(self._place, pool_size)
        self._due = Paced(lambda: self.ask(look_due()))
        self._workers = Paced(lambda: self.follow(overseeing.workers(limit=WORKERS_SHOWN, holds=HOLDS_SHOWN)))
        self._findings = Paced(
            lambda: asyncio.to_thread(self._examine),
            seconds=EXAMINED_SECONDS,
            seconds_max=EXAMINED_SECONDS_MAX,
        )

    @property
    def schema(self) -> str:
        """The schema of the tables."""
        return self._runner.schema

    async def follow(
        self, plan: verbs.Plan[T], *, on_behalf_of: str | None = None, seconds: float = REQUEST_SECONDS_MAX
    ) -> T:
        """Return the answer of a plan; the events of what it changes tell ``on_behalf_of``.

        Raises:
            TimeoutError: it took longer than ``seconds``.
            WorkflowError: the database refused it, or is away.
        """
        async with asyncio.timeout(seconds):
            return await verbs.follow_async(
                plan, lambda statement: self._runner.run(statement, on_behalf_of=on_behalf_of)
            )

    async def ask(self, statement: Statement[T], *, seconds: float = REQUEST_SECONDS_MAX) -> T:
        """Return what one statement reads; errors as in ``follow``."""
        async with asyncio.timeout(seconds):
            return await self._runner.run(statement)

    async def stats(self, window_seconds: float, *, seconds: float = REQUEST_SECONDS_MAX) -> Stats:
        """Return counts and rates of now, and what is due, which may be some seconds old while runs flow."""
        async with asyncio.timeout(seconds):
            return await self.follow(overseeing.stats(window_seconds, due=await self._due.get()))

    async def types(
        self, window_seconds: float, *, seconds: float = REQUEST_SECONDS_MAX
    ) -> list[TypeSummary]:
        """Return a summary of each type; otherwise as ``stats``."""
        async with asyncio.timeout(seconds):
            return await self.follow(overseeing.types(window_seconds, due=await self._due.get()))

    async def workers(self) -> list[WorkerSummary]:
        """Return who the workers are and some of what they hold, some seconds ago while runs flow."""
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            return await self._workers.get()

    async def examine(self) -> list[Finding]:
        """Return what ``wf doctor`` finds, on a connection of its own.

        Raises:
            DatabaseUnavailable: there is none.
        """
        return await self._findings.get()

    def _examine(self) -> list[Finding]:
        database = self._place.find()
        session = Session(is_pooled=database.is_pooled)
        with (
            connect(database.conninfo, session=session) as conn,
            cut_after(conn, STATEMENT_SECONDS_MAX),  # nothing goes on that nobody waits for
        ):
            path = examine_path(conn, database.conninfo, is_pooled=database.is_pooled)
            return [*path, *examine(conn, database.schema, long_seconds=LONG_SECONDS)]

    def close(self) -> None:
        """Close the connections that rest."""
        self._runner.close()
