"""What goes in and out, as msgspec structs: they read, write and describe (``/openapi.json``) the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from simpleworkflow.codec import JsonText
from simpleworkflow.model import Run, RunEvent, Status

__all__ = [
    "CancelBody",
    "ChangeAnswer",
    "ErrorAnswer",
    "EventBody",
    "EventsAnswer",
    "EventsQuery",
    "MeAnswer",
    "NoBody",
    "ReopenBody",
    "RunAnswer",
    "RunBody",
    "RunsAnswer",
    "RunsQuery",
    "SubmitBody",
    "SubmittedAnswer",
    "event_body",
    "run_body",
]

CONTENTS = ("payload", "last_error", "result")
_NAMES = [field.name for field in fields(Run) if field.name not in (*CONTENTS, "hidden")]

Pattern = Annotated[
    str,
    Meta(max_length=200, pattern=r"^([A-Za-z0-9_.-]+%?|%)$", description="a type, or a prefix ending in %"),
]
Reason = Annotated[str, Meta(description="why, for the history")]


class In(Struct, forbid_unknown_fields=True):
    """What a client says: unknown names are refused."""


# ── requests ───────────────────────────────────────────────────────────────────────────────────────


class RunsQuery(In):
    """Which runs to list."""

    pattern: tuple[Pattern, ...] = ()
    status: tuple[Status, ...] = ()
    worker: Annotated[str, Meta(min_length=1, max_length=400)] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=400)] | None = None
    created_from: Annotated[datetime, Meta(tz=True)] | None = None
    created_before: Annotated[datetime, Meta(tz=True)] | None = None
    payload: Annotated[str, Meta(min_length=1, max_length=4000)] | None = None
    page: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class EventsQuery(In):
    """Which events of a run to list."""

    after: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class NoQuery(In):
    """No parameter is known."""


class NoBody(In):
    """Nothing is to be said."""


class SubmitBody(In):
    """A run to submit."""

    type: Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
    payload: Raw | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 100
    run_at: Annotated[datetime, Meta(tz=True)] | None = None
    delay_seconds: Annotated[float, Meta(ge=0, le=3_155_760_000)] = 0
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=400)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 3


class CancelBody(In):
    """Why a run is cancelled."""

    reason: Reason | None = None


class ReopenBody(In):
    """How many attempts a run gets more, and why."""

    attempts: Annotated[int, Meta(ge=1, le=1000)] = 3
    reason: Reason | None = None


# ── answers ────────────────────────────────────────────────────────────────────────────────────────


class RunBody(Struct, frozen=True):
    """One run; in lists without payload and result, and with the beginning of its error."""

    id: UUID
    type: str
    status: Status
    priority: int
    run_at: datetime
    idempotency_key: str | None
    attempt: int
    max_attempts: int
    leased_by: str | None
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    fencing_token: int
    parent_id: UUID | None
    finished_at: datetime | None
    last_error: str | None
    payload: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    hidden: Annotated[Sequence[str], Meta(description="what this role may not read")] | UnsetType = UNSET


class RunAnswer(Struct, frozen=True):
    """One run."""

    run: RunBody


class RunsAnswer(Struct, frozen=True):
    """A page of runs, newest first; ``looked_at`` of them were looked at, back to ``looked_back_to``."""

    runs: Sequence[RunBody]
    next_page: UUID | None
    looked_at: int
    looked_back_to: datetime | None


class SubmittedAnswer(Struct, frozen=True):
    """The run of a submission, and whether it is new; no run: it has succeeded, and its policy keeps no such runs."""

    run: RunBody | None
    created: bool


class ChangeAnswer(Struct, frozen=True):
    """Whether this request changed the run, and the run now; none: it has gone in the meantime."""

    changed: bool
    run: RunBody | None


class EventBody(Struct, frozen=True):
    """What happened to a run."""

    id: int
    run_id: UUID
    event_type: str
    data: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    created_at: datetime


class StreamBody(Struct, frozen=True):
    """What happened to a run, and of which type that is; None: it is no more."""

    id: int
    run_id: UUID
    event_type: str
    data: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    created_at: datetime
    type: str | None


class EventsAnswer(Struct, frozen=True):
    """Some events of a run in their order; ``next_after`` asks for those that follow."""

    events: Sequence[EventBody]
    next_after: int | None


class MeAnswer(Struct, frozen=True):
    """Who asks, and the version of the server."""

    name: str | None
    role: Literal["reader", "operator", "admin"]
    version: str


class ErrorBody(Struct, frozen=True):
    """What went wrong, and what to do."""

    code: str
    message: str
    hint: str | None


class ErrorAnswer(Struct, frozen=True):
    """An error."""

    error: ErrorBody


# ── from our values ────────────────────────────────────────────────────────────────────────────────


def run_body(run: Run, *, shows_contents: bool, is_brief: bool = False) -> RunBody:
    """Return a run as it is told; ``shows_contents``: to somebody who may read what it is about."""
    known = {name: getattr(run, name) for name in _NAMES}
    hidden = sorted(run.hidden) if shows_contents else list(CONTENTS)
    known["last_error"] = run.last_error if shows_contents else None
    if not is_brief:
        known["payload"] = raw(run.payload if shows_contents else None)
        known["result"] = raw(run.result if shows_contents else None)
    return RunBody(**known, hidden=hidden or UNSET)


def event_body(event: RunEvent, *, shows_contents: bool) -> EventBody:
    """Return an event as it is told."""
    data = raw(event.data) if shows_contents else Raw(b"{}")
    return EventBody(event.id, event.run_id, event.event_type, data, event.created_at)


def raw(value: Any) -> Raw:
    """Return JSON that the database wrote, digit for digit."""
    return Raw(value.text.encode()) if isinstance(value, JsonText) else Raw(b"null")
