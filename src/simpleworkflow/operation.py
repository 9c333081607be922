"""Operations, as values: one change of all the runs that a filter matches.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from simpleworkflow.model import Status

__all__ = ["OPERABLE", "MatchedCount", "Operation", "OperationKind"]

OPERATION_PATTERNS_MAX = 100

OperationKind = Literal["cancel", "reopen"]
# Which runs each kind of operation may change.
OPERABLE: dict[OperationKind, tuple[Status, ...]] = {
    "cancel": ("pending", "leased", "waiting"),
    "reopen": ("failed", "cancelled"),
}


@dataclass(frozen=True, slots=True)
class MatchedCount:
    """How many runs an operation would change: so many, or, unless it ``is_exact``, so many at least."""

    matched: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """One change (``kind``) of all the runs that ``patterns``, ``statuses`` and the times match, and how it stands.

    ``state``: running, stopped (by ``stopped_by``), finished, or failed (``error``).  ``matched`` is how many runs
    matched when it began (None: not counted yet), ``done`` how many of them were dealt with, ``changed`` how many
    that changed: the others were no longer as the filter has it, or somebody had them locked.  ``attempts`` is the
    new budget of runs that are reopened.
    """

    id: UUID
    kind: OperationKind
    patterns: Sequence[str]
    statuses: Sequence[Status]
    created_from: datetime | None
    created_before: datetime | None
    attempts: int | None
    reason: str
    state: Literal["running", "stopped", "finished", "failed"]
    matched: int | None
    done: int
    changed: int
    requested_by: str
    on_behalf_of: str | None
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    stopped_by: str | None
    error: str | None

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet, though perhaps nobody carries it out."""
        return self.state == "running"
