"""The part of the clients that changes many runs at once: operations."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from simpleworkflow.client import operating
from simpleworkflow.client.verbs import Patterns, Plan, Statuses
from simpleworkflow.operation import MatchedCount, Operation, OperationKind

__all__ = ["AsyncOperating", "Operating"]

T = TypeVar("T")


class Operating:
    """What ``Client`` offers to change all the runs that match."""

    @abstractmethod
    def _follow(self, plan: Plan[T], conn: Any = None) -> T: ...

    def operate(
        self,
        kind: OperationKind,
        *,
        patterns: Patterns,
        statuses: Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        reason: str,
        attempts: int = 3,
    ) -> Operation:
        """Ask that all runs that match be cancelled, or reopened; return the operation, which then goes on by itself.

        ``kind`` is ``"cancel"`` (of runs that are pending, leased or waiting, or those of these that ``statuses``
        names) or ``"reopen"`` (of failed or cancelled ones, with ``attempts`` more).  The workers carry it out, in
        short transactions of a few hundred runs, whoever of them dies; without a worker it waits for one.  What it
        changes is what matches when it comes to it, among the runs recorded by now, no run twice.  ``operation`` tells
        how far it is, ``stop_operation`` stops it.  Operations are carried out one after the other.

        ``reason`` is kept with the operation and, with who asked, in the event of each run that it changes.  Should the
        answer be lost, it is not sent again: ``operations`` shows whether it was recorded.

        Raises:
            InvalidInput: an argument cannot be used; the message names it.
            NotPermitted: this connection's role may not; an operator may.
        """
        return self._follow(
            operating.operate(
                kind,
                patterns=patterns,
                statuses=statuses,
                created_from=created_from,
                created_before=created_before,
                reason=reason,
                attempts=attempts,
            )
        )

    def count_operable(
        self,
        kind: OperationKind,
        *,
        patterns: Patterns,
        statuses: Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        look_at_all: bool = False,
    ) -> MatchedCount:
        """Count the runs that such an operation would change now, quickly: exactly, or at least so many.

        It looks at 10,000 runs; with ``look_at_all`` at all of them, part after part.

        Raises:
            InvalidInput, NotPermitted: as for ``operate``.
        """
        return self._follow(
            operating.count_operable(
                kind,
                patterns=patterns,
                statuses=statuses,
                created_from=created_from,
                created_before=created_before,
                look_at_all=look_at_all,
            )
        )

    def operations(self, *, limit: int = 50) -> list[Operation]:
        """Return operations, the last asked for first."""
        return self._follow(operating.operations(limit))

    def operation(self, operation_id: UUID | str) -> Operation:
        """Return how an operation stands.

        Raises:
            OperationNotFound: there is no such operation.
        """
        return self._follow(operating.operation(operation_id))

    def stop_operation(self, operation_id: UUID | str) -> bool:
        """Stop an operation; return whether this call changed that (False: it had ended).

        When this returns, it changes no run any more.  What it has changed stays as it is.

        Raises:
            OperationNotFound: there is no such operation.
        """
        return self._follow(operating.stop_operation(operation_id))


class AsyncOperating:
    """What ``AsyncClient`` offers to change all the runs that match."""

    @abstractmethod
    async def _follow(self, plan: Plan[T], conn: Any = None) -> T: ...

    async def operate(
        self,
        kind: OperationKind,
        *,
        patterns: Patterns,
        statuses: Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        reason: str,
        attempts: int = 3,
    ) -> Operation:
        """Ask that all runs that match be cancelled, or reopened; see ``Client.operate``."""
        return await self._follow(
            operating.operate(
                kind,
                patterns=patterns,
                statuses=statuses,
                created_from=created_from,
                created_before=created_before,
                reason=reason,
                attempts=attempts,
            )
        )

    async def count_operable(
        self,
        kind: OperationKind,
        *,
        patterns: Patterns,
        statuses: Statuses | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        look_at_all: bool = False,
    ) -> MatchedCount:
        """Count the runs that such an operation would change; see ``Client.count_operable``."""
        return await self._follow(
            operating.count_operable(
                kind,
                patterns=patterns,
                statuses=statuses,
                created_from=created_from,
                created_before=created_before,
                look_at_all=look_at_all,
            )
        )

    async def operations(self, *, limit: int = 50) -> list[Operation]:
        """Return operations, the last asked for first."""
        return await self._follow(operating.operations(limit))

    async def operation(self, operation_id: UUID | str) -> Operation:
        """Return how an operation stands; see ``Client.operation``."""
        return await self._follow(operating.operation(operation_id))

    async def stop_operation(self, operation_id: UUID | str) -> bool:
        """Stop an operation; return whether this call changed that; see ``Client.stop_operation``."""
        return await self._follow(operating.stop_operation(operation_id))
