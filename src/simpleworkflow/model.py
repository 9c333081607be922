"""What the tables hold, as values: runs, events, new runs, patterns.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

__all__ = [
    "ENDED",
    "STATUSES",
    "NewRun",
    "Run",
    "RunEvent",
    "RunPage",
    "Status",
    "Submitted",
    "matches",
    "narrow_patterns",
]

Status = Literal["pending", "leased", "waiting", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("pending", "leased", "waiting", "succeeded", "failed", "cancelled")
ENDED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Run:
    """One row of ``workflow_run`` as it was when it was read; times are aware, in UTC."""

    id: UUID
    type: str
    payload: Any
    status: Status
    priority: int
    run_at: datetime
    idempotency_key: str | None
    attempt: int
    max_attempts: int
    leased_by: str | None
    lease_until: datetime | None
    last_error: str | None
    result: Any
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    fencing_token: int
    parent_id: UUID | None
    finished_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether the run succeeded, failed or was cancelled."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One row of ``workflow_event``: what happened to a run.  Within a run, ``id`` is the order."""

    id: int
    run_id: UUID
    event_type: str
    data: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first, and where the next page begins (None: this was the last)."""

    runs: Sequence[Run]
    next_before: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """One run to submit.  ``delay_seconds`` counts from ``run_at``, or from now by the database's clock.

    ``run_at`` must be aware.  ``priority``: lower runs first.  ``max_attempts``: 1 to 1000.
    """

    type: str
    payload: Any = field(default_factory=dict)
    idempotency_key: str | None = None
    priority: int = 100
    run_at: datetime | None = None
    delay_seconds: float = 0.0
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a submission came to: the run's id, and False where its idempotency key existed already."""

    id: UUID
    created: bool


def matches(pattern: str, type_: str) -> bool:
    """Return whether ``pattern`` covers ``type_``: the same, or a prefix when it ends in ``%``."""
    return type_.startswith(pattern[:-1]) if pattern.endswith("%") else type_ == pattern


def narrow_patterns(handled: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return the fewest patterns that cover what is both handled and wanted, sorted.

    ``billing.%`` narrowed by ``billing.invoice.v1`` is ``billing.invoice.v1``, and the other way round.
    """
    handled, wanted = set(handled), set(wanted)
    both = {one for one in handled for other in wanted if _covers(other, one)}
    both |= {other for other in wanted for one in handled if _covers(one, other)}
    return sorted(one for one in both if not any(_covers(other, one) for other in both - {one}))


def _covers(pattern: str, other: str) -> bool:
    """Return whether everything that ``other`` covers is covered by ``pattern``."""
    if not pattern.endswith("%"):
        return pattern == other
    return other.removesuffix("%").startswith(pattern[:-1])
