"""The server's database: a bounded number of connections, and an end to every question."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from simpleworkflow.client import verbs
from simpleworkflow.client.place import Place
from simpleworkflow.client.runners import AsyncRunner
from simpleworkflow.resolve import Database
from simpleworkflow.session import Session

__all__ = ["REQUEST_SECONDS_MAX", "Store"]

T = TypeVar("T")

REQUEST_SECONDS_MAX = 10.0
# The server itself ends a statement before we cut its connection, so that nothing goes on that nobody waits for.
STATEMENT_SECONDS_MAX = 9.0


class _Runner(AsyncRunner):
    def _session(self, database: Database) -> Session:
        return Session(is_pooled=database.is_pooled, statement_seconds=STATEMENT_SECONDS_MAX)


class Store:
    """Carries plans out on at most ``pool_size`` connections, each within ``REQUEST_SECONDS_MAX``."""

    def __init__(self, database_url: str | None, schema: str | None, pool_size: int) -> None:
        self._runner = _Runner(Place(database_url, schema), pool_size)

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

    def close(self) -> None:
        """Close the connections that rest."""
        self._runner.close()
