"""What whoever looks after runs is told of workers, and of a run that does not run.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

__all__ = ["HeldRun", "Why", "WorkerState", "WorkerSummary"]

WorkerState = Literal["running", "stopping", "lost", "stopped"]


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run that a worker holds: since when, in which attempt, and until when unless its lease is extended."""

    id: UUID
    type: str
    attempt: int
    leased_at: datetime
    lease_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSummary:
    """One worker, for one boot of it: who and where, what it handles, and how much of it is taken.

    ``state`` is ``running``; ``stopping``, it claims nothing more; ``lost``, known dead, or not seen for three times
    ``beat_seconds``; or ``stopped``.  It executes up to ``concurrency`` runs and may hold a few more that wait for it.
    ``held`` is how many it holds, counted up to a hundred, from there on as last said; ``holds`` are a few of them,
    those it has held longest first.
    """

    id: str
    host: str
    pid: int | None
    runtime: str
    version: str | None
    patterns: Sequence[str]
    concurrency: int
    beat_seconds: float
    started_at: datetime
    seen_at: datetime
    stopping_at: datetime | None
    stopped_at: datetime | None
    state: WorkerState
    held: int
    holds: Sequence[HeldRun]


@dataclass(frozen=True, slots=True)
class Why:
    """The one reason that a run is not running now.

    ``reason`` is a word that stays as it is: ``running``, ``lapsed``, ``ended``, ``attempts_used_up``, ``waiting``,
    ``hidden``, ``due_later``, ``paused``, ``no_worker``, ``locked``, ``suspect``, ``workers_busy`` or ``next``.
    ``says`` is a sentence with the figures, ``remedy`` one line on what to do, ``facts`` the figures by
    name, times in ISO 8601.
    """

    reason: str
    says: str
    remedy: str
    facts: Mapping[str, Any]
