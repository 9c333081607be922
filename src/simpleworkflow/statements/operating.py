"""One change of all the runs that a filter matches: ask for it, carry it out, see how it stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from simpleworkflow.codec import decode
from simpleworkflow.database import Rows, Statement
from simpleworkflow.model import utc_text
from simpleworkflow.operation import Operation, OperationKind

_COLUMNS = (
    "id::text, kind, filter::text, attempts, reason, state, matched, done, changed, requested_by, on_behalf_of, "
    "requested_at, started_at, ended_at, stopped_by, error"
)


class Operable(NamedTuple):
    """How many runs a part has, and where the next part goes on, as the database wrote it (None: it was the last)."""

    runs: int
    walk: str | None


class Carried(NamedTuple):
    """How an operation stands after a chunk of it was carried out."""

    operation_id: UUID
    state: str
    matched: int | None
    done: int
    changed: int


def operate(
    kind: OperationKind,
    *,
    patterns: Sequence[str],
    statuses: Sequence[str] | None,
    created_from: datetime | None,
    created_before: datetime | None,
    reason: str | None,
    attempts: int,
) -> Statement[Operation]:
    """Ask for an operation; return it."""
    return Statement(
        f"select {_COLUMNS} from {{schema}}.operate(%s::text, %s::text[], %s::text, %s::text[], "
        "%s::text::timestamptz, %s::text::timestamptz, %s::int)",
        (
            kind,
            list(patterns),
            reason,
            None if statuses is None else list(statuses),
            utc_text(created_from),
            utc_text(created_before),
            attempts,
        ),
        lambda rows: _read_operations(rows)[0],
        is_change=True,
    )


def count_operable(
    kind: OperationKind,
    *,
    patterns: Sequence[str],
    statuses: Sequence[str] | None,
    created_from: datetime | None,
    created_before: datetime | None,
    walk: str | None,
    looks: int,
) -> Statement[Operable]:
    """Count the runs that such an operation would change now, among the next ``looks``."""
    return Statement(
        "select runs, walk::text from {schema}.count_operable(%s::text, %s::text[], %s::text[], "
        "%s::text::timestamptz, %s::text::timestamptz, %s::text::jsonb, %s::int)",
        (
            kind,
            list(patterns),
            None if statuses is None else list(statuses),
            utc_text(created_from),
            utc_text(created_before),
            walk,
            looks,
        ),
        lambda rows: Operable(*rows[0]),
        is_repeatable=True,
    )


def stop_operation(operation_id: UUID) -> Statement[bool | None]:
    """Stop an operation; return whether this changed it, None where there is none."""
    return Statement(
        "select {schema}.stop_operation(%s::text::uuid)",
        (str(operation_id),),
        lambda rows: None if rows[0][0] is None else bool(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def list_operations(operation_id: UUID | None = None, *, limit: int = 50) -> Statement[list[Operation]]:
    """Return operations, the last asked for first; with an id that one, if there is one."""
    return Statement(
        f"select {_COLUMNS} from {{schema}}.list_operations(%s::text::uuid, %s::int)",
        (operation_id and str(operation_id), limit),
        _read_operations,
        is_repeatable=True,
    )


def carry_operation(carrier: str, *, limit: int, lease_seconds: float) -> Statement[Carried | None]:
    """Carry out the next chunk of an operation; None: there is none that ``carrier`` should carry out."""
    return Statement(
        "select id::text, state, matched, done, changed from {schema}.carry_operation("
        "%s::text, %s::int, p_lease_seconds => %s::double precision)",
        (carrier, limit, lease_seconds),
        lambda rows: Carried(UUID(rows[0][0]), *rows[0][1:]) if rows else None,
        is_repeatable=True,  # it goes on where the last one that was committed has come to
    )


def _read_operations(rows: Rows) -> list[Operation]:
    return [_read_operation(*row) for row in rows]


def _read_operation(id_: str, kind: Any, filter_: str, attempts: int | None, *rest: Any) -> Operation:
    wanted = decode(filter_)
    reason, state, matched, done, changed, requested_by, on_behalf_of, *others = rest
    requested_at, started_at, ended_at, stopped_by, error = others
    return Operation(
        id=UUID(id_),
        kind=kind,
        patterns=tuple(wanted["pattern"]),
        statuses=tuple(wanted["status"]),
        created_from=_time(wanted.get("created_from")),
        created_before=_time(wanted.get("created_before")),
        attempts=attempts,
        reason=reason,
        state=state,
        matched=matched,
        done=done,
        changed=changed,
        requested_by=requested_by,
        on_behalf_of=on_behalf_of,
        requested_at=requested_at.astimezone(UTC),
        started_at=started_at and started_at.astimezone(UTC),
        ended_at=ended_at and ended_at.astimezone(UTC),
        stopped_by=stopped_by,
        error=error,
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
