"""``AsyncClient``: the verbs, called from tasks."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID

from simpleworkflow.client import overseeing, verbs
from simpleworkflow.client.foreign import in_one_transaction, run_foreign_async
from simpleworkflow.client.operations import AsyncOperating
from simpleworkflow.client.oversight import AsyncOversight
from simpleworkflow.client.place import Place
from simpleworkflow.client.runners import AsyncRunner
from simpleworkflow.client.waiting import TOO_SHORT_SECONDS, AsyncWaiting, check_timeout
from simpleworkflow.model import (
    NewRun,
    Policy,
    PrunableCount,
    Run,
    RunEvent,
    RunPage,
)
from simpleworkflow.spans import current_traceparent
from simpleworkflow.statements import submit_runs

__all__ = ["AsyncClient", "AsyncRunHandle"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AsyncRunHandle:
    """A submitted run: its id, and whether this call recorded it (False: its idempotency key existed)."""

    id: UUID
    created: bool
    _client: AsyncClient = field(repr=False, compare=False)

    async def get(self) -> Run:
        """Return the run as it is now; see ``Client.get``."""
        return await self._client.get(self.id)

    async def wait(self, timeout: float | None = None) -> Run:
        """Return the run when it has ended, however it ended; see ``Client.wait``."""
        return await self._client.wait(self.id, timeout)

    async def result(self, timeout: float | None = None) -> Any:
        """Return what the run's handler returned, when the run has succeeded; see ``RunHandle.result``."""
        return verbs.result_of(await self.wait(timeout))

    async def cancel(self, *, reason: str | None = None) -> bool:
        """Cancel the run; return whether this call changed it; see ``Client.cancel``."""
        return await self._client.cancel(self.id, reason=reason)

    async def events(self) -> list[RunEvent]:
        """Return what happened to the run so far; see ``Client.events``."""
        return await self._client.events(self.id)


class AsyncClient(AsyncOversight, AsyncOperating):
    """Submit, read, await and steer runs from tasks: ``Client``, with ``await`` before each verb.

    Options, errors and limits are those of ``Client``.  The connections belong to the running loop; in another
    loop the client connects anew.  ``conn`` of a verb is psycopg 3's ``AsyncConnection``, SQLAlchemy's
    ``AsyncConnection`` or ``AsyncSession`` on psycopg or asyncpg, or asyncpg's ``Connection``.

    Example::

        async with AsyncClient() as client:
            run = await client.submit("billing.invoice.v1", {"invoice_id": "INV-001"})
            print((await run.wait(timeout=30)).result)
    """

    def __init__(
        self, database_url: str | None = None, *, schema: str | None = None, pool_size: int = 10
    ) -> None:
        self._runner = AsyncRunner(Place(database_url, schema), pool_size)
        self._waiting = AsyncWaiting(self._runner.run)

    async def submit(
        self,
        type: str,  # noqa: A002 - the column's name
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        priority: int = 100,
        run_at: datetime | None = None,
        delay: float | timedelta = 0,
        max_attempts: int = 3,
        conn: Any = None,
    ) -> AsyncRunHandle:
        """Record a run; return its handle; see ``Client.submit``."""
        new = NewRun(
            type=type,
            payload=payload,
            idempotency_key=idempotency_key,
            priority=priority,
            run_at=run_at,
            delay=delay,
            max_attempts=max_attempts,
        )
        submitted = await self._follow(verbs.submit(new), conn)
        return AsyncRunHandle(submitted.id, submitted.created, self)

    async def submit_many(
        self, runs: verbs.RunsToSubmit, *, conn: Any = None
    ) -> builtins.list[AsyncRunHandle]:
        """Record many runs, all of them or none; return their handles in order; see ``Client.submit_many``."""
        chunks = submit_runs(verbs.new_runs(runs), traceparent=current_traceparent())
        submitted = await (
            self._runner.run_together(chunks)
            if conn is None
            else self._follow(in_one_transaction(chunks), conn)
        )
        return [AsyncRunHandle(one.id, one.created, self) for one in submitted]

    async def get(self, run_id: UUID | str) -> Run:
        """Return the run as it is now; see ``Client.get``."""
        return await self._follow(verbs.get(run_id))

    async def events(self, run_id: UUID | str) -> builtins.list[RunEvent]:
        """Return what happened to the run so far, in its order; see ``Client.events``."""
        return await self._follow(verbs.events(run_id))

    async def wait(self, run_id: UUID | str, timeout: float | None = None) -> Run:
        """Return the run when it has ended; its status tells how; see ``Client.wait``."""
        run_id, seconds = verbs.as_run_id(run_id), check_timeout(timeout)
        if seconds is not None and seconds < TOO_SHORT_SECONDS:
            return await self._follow(verbs.get_ended(run_id, seconds))
        await self._runner.prepare()  # as in Client.wait
        return await self._waiting.wait(run_id, seconds)

    async def cancel(self, run_id: UUID | str, *, reason: str | None = None, conn: Any = None) -> bool:
        """Cancel a run; return whether this call changed it; see ``Client.cancel``."""
        return await self._follow(verbs.cancel(run_id, reason), conn)

    async def reopen(
        self, run_id: UUID | str, *, attempts: int = 3, reason: str | None = None, conn: Any = None
    ) -> bool:
        """Give a failed or cancelled run ``attempts`` more; return whether this changed it; see ``Client.reopen``."""
        return await self._follow(verbs.reopen(run_id, attempts, reason), conn)

    async def prune(
        self,
        older_than: float | timedelta,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete runs that ended long ago; return how many; see ``Client.prune``."""
        return await self._follow(
            verbs.prune(older_than, pattern=pattern, status=status, limit=limit, dry_run=dry_run)
        )

    async def count_prunable(
        self,
        older_than: float | timedelta,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
    ) -> PrunableCount:
        """Count what ``prune`` would delete, quickly; see ``Client.count_prunable``."""
        return await self._follow(verbs.count_prunable(older_than, pattern=pattern, status=status))

    async def set_policy(
        self, pattern: str, *, keeps_events: bool = True, keeps_succeeded: bool = True
    ) -> bool:
        """Say what types keep; return whether that changed anything; see ``Client.set_policy``."""
        return await self._follow(overseeing.set_policy(pattern, keeps_events, keeps_succeeded))

    async def drop_policy(self, pattern: str) -> bool:
        """Let ``pattern`` have no policy of its own; return whether it had one; see ``Client.drop_policy``."""
        return await self._follow(overseeing.drop_policy(pattern))

    async def policies(self) -> builtins.list[Policy]:
        """Return the policies that apply now, the least specific first."""
        return await self._follow(overseeing.policies())

    async def list(
        self,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        payload: Any = None,
        page: UUID | str | None = None,
        limit: int = 50,
        look_at_all: bool = False,
    ) -> RunPage:
        """Return a page of runs, newest first; see ``Client.list``."""
        return await self._follow(
            verbs.list_page(
                pattern=pattern,
                status=status,
                created_from=created_from,
                created_before=created_before,
                payload=payload,
                page=page,
                limit=limit,
                look_at_all=look_at_all,
            )
        )

    async def iterate(
        self,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        payload: Any = None,
    ) -> AsyncIterator[Run]:
        """Yield all the runs that ``list`` would show, page after page."""
        next_page = None
        while True:
            found = await self.list(
                pattern=pattern,
                status=status,
                created_from=created_from,
                created_before=created_before,
                payload=payload,
                page=next_page,
                limit=200,
            )
            for run in found.runs:
                yield run
            next_page = found.next_page
            if next_page is None:
                return

    async def close(self) -> None:
        """Close the connections, and end all waits with ``DatabaseUnavailable``; a later call connects anew."""
        await self._waiting.close()
        self._runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _follow(self, plan: verbs.Plan[T], conn: Any = None) -> T:
        if conn is None:
            return await verbs.follow_async(plan, self._runner.run)
        return await verbs.follow_async(
            plan, lambda statement: run_foreign_async(conn, statement, self._runner.schema)
        )
