"""What the server asks: keys, schedules, and all events as one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from simpleworkflow.codec import JsonText
from simpleworkflow.database import Rows, Statement


class Key(NamedTuple):
    """An API key, without the key: ``digest`` is its SHA-256 in hexadecimal."""

    name: str
    role: str
    digest: str
    created_at: datetime
    created_by: str
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of ``workflow_schedule``."""

    id: UUID
    type: str
    schedule: str
    timezone: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    enabled: bool
    priority: int
    max_attempts: int


class StreamPlace(NamedTuple):
    """The last id of an event that was given out, and the snapshot in which that was asked."""

    last_id: int
    xmin: int
    xmax: int


class StreamEvent(NamedTuple):
    """An event in the stream; all but the id is None where it is of none of the patterns that were asked for."""

    id: int
    run_id: UUID | None
    event_type: str | None
    data: JsonText | None
    created_at: datetime | None
    type: str | None


def add_key(name: str, role: str, digest: str) -> Statement[bool]:
    """Record a key; return False where there is one of that name."""
    return Statement(
        "select {schema}.add_key(%s::text, %s::text, %s::text)",
        (name, role, digest),
        lambda rows: bool(rows[0][0]),
        is_change=True,
    )


def revoke_key(name: str) -> Statement[bool]:
    """Revoke a key; return whether there was one."""
    return Statement(
        "select {schema}.revoke_key(%s::text)",
        (name,),
        lambda rows: bool(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def list_keys() -> Statement[Sequence[Key]]:
    """Return all keys, revoked ones too."""
    return Statement(
        "select name, role, digest, created_at, created_by, revoked_at from {schema}.list_keys()",
        (),
        lambda rows: [Key(*row) for row in rows],
        is_repeatable=True,
    )


def list_schedules() -> Statement[Sequence[Schedule]]:
    """Return the schedules, by type."""
    return Statement(
        "select id::text, type, schedule, timezone, next_run_at, last_run_at, enabled, priority, max_attempts "
        "from {schema}.list_schedules()",
        (),
        _read_schedules,
        is_repeatable=True,
    )


def stream_place() -> Statement[StreamPlace]:
    """Return how far ids have been given out."""
    return Statement(
        "select last_id, xmin, xmax from {schema}.stream_place()",
        (),
        lambda rows: StreamPlace(*rows[0]),
        is_repeatable=True,
    )


def read_stream(
    after: int, gaps: Sequence[tuple[int, int]], patterns: Sequence[str] | None, *, limit: int
) -> Statement[list[StreamEvent]]:
    """Return up to ``limit`` events with an id above ``after`` or in one of the gaps, in the order of their ids."""
    return Statement(
        "select id, run_id::text, event_type, data::text, created_at, type "
        "from {schema}.read_stream(%s::bigint, %s::bigint[], %s::bigint[], %s::text[], %s::int)",
        (
            after,
            [low for low, _ in gaps],
            [high for _, high in gaps],
            None if patterns is None else list(patterns),
            limit,
        ),
        _read_events,
        is_repeatable=True,
    )


def _read_events(rows: Rows) -> list[StreamEvent]:
    return [
        StreamEvent(
            id_,
            run_id and UUID(run_id),
            event_type,
            None if data is None else JsonText(data),
            created_at and created_at.astimezone(UTC),
            type_,
        )
        for id_, run_id, event_type, data, created_at, type_ in rows
    ]


def _read_schedules(rows: Rows) -> list[Schedule]:
    return [
        Schedule(UUID(id_), type_, schedule, timezone, _in_utc(next_at), _in_utc(last_at), *rest)
        for id_, type_, schedule, timezone, next_at, last_at, *rest in rows
    ]


def _in_utc(time: datetime | None) -> datetime | None:
    return time and time.astimezone(UTC)
