"""``Client``: the verbs, called from threads."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID

from simpleworkflow.client import overseeing, verbs
from simpleworkflow.client.foreign import in_one_transaction, run_foreign
from simpleworkflow.client.operations import Operating
from simpleworkflow.client.oversight import Oversight
from simpleworkflow.client.place import Place
from simpleworkflow.client.runners import Runner
from simpleworkflow.client.waiting import TOO_SHORT_SECONDS, Waiting, check_timeout
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

__all__ = ["Client", "RunHandle"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A submitted run: its id, and whether this call recorded it (False: its idempotency key existed)."""

    id: UUID
    created: bool
    _client: Client = field(repr=False, compare=False)

    def get(self) -> Run:
        """Return the run as it is now; see ``Client.get``."""
        return self._client.get(self.id)

    def wait(self, timeout: float | None = None) -> Run:
        """Return the run when it has ended, however it ended; see ``Client.wait``."""
        return self._client.wait(self.id, timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Return what the run's handler returned, when the run has succeeded.

        Raises:
            RunNotSucceeded: the run failed or was cancelled.
            NotPermitted: this connection's role may not read results.
            WaitTimeout: it did not end within ``timeout`` seconds.
        """
        return verbs.result_of(self.wait(timeout))

    def cancel(self, *, reason: str | None = None) -> bool:
        """Cancel the run; return whether this call changed it; see ``Client.cancel``."""
        return self._client.cancel(self.id, reason=reason)

    def events(self) -> list[RunEvent]:
        """Return what happened to the run so far; see ``Client.events``."""
        return self._client.events(self.id)


class Client(Oversight, Operating):
    """Submit, read, await and steer runs, from any number of threads.

    Without ``database_url`` the database is the one of ``DATABASE_URL``, else of ``PG*``, else the embedded
    PostgreSQL.  Nothing connects before the first call.  At most ``pool_size`` connections are open, and one
    that broke is replaced; a statement is sent again only where that does no harm.  ``close`` (or leaving the
    ``with`` block) closes them; a later call connects anew.  A forked child opens its own.

    ``conn`` of a verb is a connection of yours: psycopg 3's ``Connection``, SQLAlchemy's ``Connection`` or
    ``Session`` on psycopg, or Django's ``connection``.  The statement is then part of your transaction, is
    never sent twice, and nothing is committed here.

    Raises:
        InvalidDatabaseUrl: the URL or the schema cannot be used.

    Every call that needs the database may raise ``DatabaseUnavailable``, and the first one
    ``SchemaMismatch``.

    Example::

        with Client() as client:
            run = client.submit("billing.invoice.v1", {"invoice_id": "INV-001"}, idempotency_key="inv:001")
            print(run.wait(timeout=30).result)
    """

    def __init__(
        self, database_url: str | None = None, *, schema: str | None = None, pool_size: int = 10
    ) -> None:
        self._runner = Runner(Place(database_url, schema), pool_size)
        self._waiting = Waiting(self._runner.run)

    def submit(
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
    ) -> RunHandle:
        """Record a run; return its handle.

        With an ``idempotency_key`` that exists, the handle is that of the run that has it, ``created`` False.
        Lower ``priority`` runs first.  It starts ``delay`` (seconds or a timedelta) after ``run_at`` (now, by
        the database's clock), at most ``max_attempts`` times.

        Raises:
            InvalidInput: a value is one that the table refuses; the message names it.
            DatabaseUnavailable: also when the answer was lost; without a key nobody knows then whether the
                run was recorded, and it is not sent again.
        """
        new = NewRun(
            type=type,
            payload=payload,
            idempotency_key=idempotency_key,
            priority=priority,
            run_at=run_at,
            delay=delay,
            max_attempts=max_attempts,
        )
        submitted = self._follow(verbs.submit(new), conn)
        return RunHandle(submitted.id, submitted.created, self)

    def submit_many(self, runs: verbs.RunsToSubmit, *, conn: Any = None) -> builtins.list[RunHandle]:
        """Record many runs, all of them or none; return their handles in the order given.

        ``runs`` are ``NewRun`` values or tuples ``(type, payload)``; they may come from a generator, which is
        read inside the transaction.  Up to 5,000 runs (4 MB) travel in one statement.

        Raises:
            InvalidInput: a run is refused; the message names its position.  Or there are several statements
                and ``conn`` is in no transaction.
            DatabaseUnavailable: as for ``submit``.
        """
        chunks = submit_runs(verbs.new_runs(runs), traceparent=current_traceparent())
        submitted = (
            self._runner.run_together(chunks)
            if conn is None
            else self._follow(in_one_transaction(chunks), conn)
        )
        return [RunHandle(one.id, one.created, self) for one in submitted]

    def get(self, run_id: UUID | str) -> Run:
        """Return the run as it is now.

        Raises:
            RunNotFound: there is no such run.
            InvalidInput: ``run_id`` is no UUID.
        """
        return self._follow(verbs.get(run_id))

    def events(self, run_id: UUID | str) -> builtins.list[RunEvent]:
        """Return what happened to the run so far, in its order.

        Raises:
            RunNotFound: there is no such run.
        """
        return self._follow(verbs.events(run_id))

    def wait(self, run_id: UUID | str, timeout: float | None = None) -> Run:
        """Return the run when it has ended; its status tells how.

        All who wait share one query, so thousands may; the end is seen within 250 ms.  A run submitted with
        ``conn`` must be committed before.  While the database cannot be reached, waiting goes on.

        Raises:
            RunNotFound: there is no such run, or no longer: a policy may delete a run when it succeeds.
            WaitTimeout: it did not end within ``timeout`` seconds; it goes on by itself.
        """
        run_id, seconds = verbs.as_run_id(run_id), check_timeout(timeout)
        if seconds is not None and seconds < TOO_SHORT_SECONDS:
            return self._follow(verbs.get_ended(run_id, seconds))
        self._runner.prepare()  # a database that was never there ends the wait; one that goes away does not
        return self._waiting.wait(run_id, seconds)

    def cancel(self, run_id: UUID | str, *, reason: str | None = None, conn: Any = None) -> bool:
        """Cancel a run; return whether this call changed it (False: it had ended).

        A pending run becomes ``cancelled`` at once.  A leased run does too, and its handler learns of it within
        250 ms by wake-up, else at its next heartbeat; its result is then refused.  Should the connection be lost
        before the answer, it is asked for again, and False may mean that this very call had cancelled the run.

        Raises:
            RunNotFound: there is no such run.
        """
        return self._follow(verbs.cancel(run_id, reason), conn)

    def reopen(
        self, run_id: UUID | str, *, attempts: int = 3, reason: str | None = None, conn: Any = None
    ) -> bool:
        """Give a failed or cancelled run ``attempts`` more and make it due now; return whether this changed it.

        Raises:
            RunNotFound: there is no such run.
            InvalidInput: ``attempts`` is not 1 to 1000.
        """
        return self._follow(verbs.reopen(run_id, attempts, reason), conn)

    def prune(
        self,
        older_than: float | timedelta,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete runs that ended at least ``older_than`` (seconds or a timedelta) ago, and their events.

        Returns how many.  ``pattern`` and ``status`` narrow it as in ``list``; at most ``limit`` runs, the oldest
        first.  They go in batches, each in a transaction of its own; one that somebody has locked stays
        for the next time.  ``dry_run`` only counts.  A pruned run is gone, for
        ``get`` too, and its idempotency key is free again.

        Raises:
            InvalidInput: an argument cannot be used, or ``status`` is not one that ends a run.
        """
        return self._follow(
            verbs.prune(older_than, pattern=pattern, status=status, limit=limit, dry_run=dry_run)
        )

    def count_prunable(
        self,
        older_than: float | timedelta,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
    ) -> PrunableCount:
        """Count what ``prune`` would delete, quickly: exactly where that is soon done, else at least so many.

        It looks at the 10,000 runs that ended first; ``prune`` with ``dry_run`` counts them all.

        Raises:
            InvalidInput: as for ``prune``.
        """
        return self._follow(verbs.count_prunable(older_than, pattern=pattern, status=status))

    def set_policy(self, pattern: str, *, keeps_events: bool = True, keeps_succeeded: bool = True) -> bool:
        """Say what the types that ``pattern`` covers keep; return whether that changed anything.

        It trades history for speed.  Without ``keeps_events``, runs recorded from now on leave none; those that
        exist go on as they began.  Without ``keeps_succeeded``, a run is deleted, with the events it has, in the
        moment it succeeds: ``get`` and ``wait`` then raise ``RunNotFound``, and its idempotency key is free again.
        Of several patterns that cover a type the most specific counts.

        Raises:
            InvalidInput: ``pattern`` is neither a type nor a prefix that ends in ``%``.
            WorkflowError: somebody has written runs in a transaction that is still open; try again.
        """
        return self._follow(overseeing.set_policy(pattern, keeps_events, keeps_succeeded))

    def drop_policy(self, pattern: str) -> bool:
        """Let ``pattern`` have no policy of its own any more; return whether it had one.

        A less specific one applies then; without one, everything is kept.

        Raises:
            InvalidInput, WorkflowError: as for ``set_policy``.
        """
        return self._follow(overseeing.drop_policy(pattern))

    def policies(self) -> builtins.list[Policy]:
        """Return the policies that apply now, the least specific first."""
        return self._follow(overseeing.policies())

    def list(
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
        """Return a page of runs, newest first.

        ``pattern`` is a type, a prefix that ends in ``%``, or several of them; ``status`` one or several;
        ``payload`` what theirs contain: ``{"customer": {"id": 42}}`` finds all runs of that customer.  The next page
        is that with ``page=found.next_page``; pages never overlap, however many runs are added.

        It is quick also where few runs match, or none: it looks at 10,000 runs at most, and returns what it found with
        a ``next_page`` that looks on.  So a page, even an empty one, is the last only if its ``next_page`` is
        None.  ``look_at_all`` looks on by itself until the page is full or all runs were looked at.

        Raises:
            InvalidInput: a filter cannot be used; the message names it.
        """
        return self._follow(
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

    def iterate(
        self,
        *,
        pattern: verbs.Patterns | None = None,
        status: verbs.Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        payload: Any = None,
    ) -> Iterator[Run]:
        """Yield all the runs that ``list`` would show, page after page, however far apart they are."""
        next_page = None
        while True:
            found = self.list(
                pattern=pattern,
                status=status,
                created_from=created_from,
                created_before=created_before,
                payload=payload,
                page=next_page,
                limit=200,
            )
            yield from found.runs
            next_page = found.next_page
            if next_page is None:
                return

    def close(self) -> None:
        """Close the connections, and end all waits with ``DatabaseUnavailable``; a later call connects anew."""
        self._waiting.close()
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(self, plan: verbs.Plan[T], conn: Any = None) -> T:
        if conn is None:
            return verbs.follow(plan, self._runner.run)
        return verbs.follow(plan, lambda statement: run_foreign(conn, statement, self._runner.schema))
