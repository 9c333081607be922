"""What clients read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from simpleworkflow.codec import JsonText, decode
from simpleworkflow.database import Rows, Statement
from simpleworkflow.model import Run, RunEvent, utc_text

_CONTENTS = ("payload", "last_error", "result")
_COLUMNS = (
    "id::text type payload::text status priority run_at idempotency_key attempt max_attempts leased_by lease_until "
    "last_error result::text created_at updated_at deleted_at fencing_token parent_id::text finished_at"
)
_RUN_COLUMNS = ", ".join(
    [f"(run).{column}" for column in _COLUMNS.split()]
    # Whether a column that comes as null was the caller's to read.
    + [f"has_column_privilege(pg_typeof(run)::text, '{column}', 'select')" for column in _CONTENTS]
)
# Of runs in a list only what fits into a line: their contents may be a megabyte each.
_BRIEF_COLUMNS = _RUN_COLUMNS
for _long, _short in (
    ("(run).payload::text", "null::text"),
    ("(run).last_error", "left((run).last_error, 500)"),
    ("(run).result::text", "null::text"),
):
    _BRIEF_COLUMNS = _BRIEF_COLUMNS.replace(_long, _short)


class RunsFound(NamedTuple):
    """Some runs, newest first; where to look on (None: nowhere), how many were looked at, back to when."""

    runs: list[Run]
    next_before: UUID | None
    looked_at: int
    looked_back_to: datetime | None


def get_runs(
    run_ids: Sequence[UUID], *, as_text: bool = False, is_brief: bool = False
) -> Statement[list[Run]]:
    """Return the runs with these ids, in no order.

    ``as_text``: payload and result as ``JsonText``; ``is_brief``: as ``list_page`` does.
    """
    columns = _BRIEF_COLUMNS if is_brief else _RUN_COLUMNS
    return Statement(
        f"select {columns} from {{schema}}.get_runs(%s::text[]::uuid[]) as run",
        ([str(run_id) for run_id in run_ids],),
        lambda rows: _read_runs(rows, JsonText if as_text else _decode_shown),
        is_repeatable=True,
    )


def find_key(key: str) -> Statement[list[UUID]]:
    """Return the id of the run that has an idempotency key, if one has."""
    return Statement(
        "select find_key::text from {schema}.find_key(%s::text)", (key,), _read_ids, is_repeatable=True
    )


def find_held(worker: str, limit: int) -> Statement[list[UUID]]:
    """Return the ids of up to ``limit`` runs that a worker holds."""
    return Statement(
        "select find_held::text from {schema}.find_held(%s::text, %s::int)",
        (worker, limit),
        _read_ids,
        is_repeatable=True,
    )


def list_page(
    *,
    patterns: Sequence[str] | None,
    statuses: Sequence[str] | None,
    created_from: datetime | None,
    created_before: datetime | None,
    before: UUID | None,
    limit: int,
    looks: int,
    payload: str | None = None,
    is_brief: bool = False,
) -> Statement[RunsFound]:
    """Return up to ``limit`` runs that come after ``before``, newest first, found among the next ``looks`` runs.

    ``payload``: the JSON that theirs contain.  ``is_brief``: without payload and result, and of an error only its
    first 500 characters.
    """
    columns = _BRIEF_COLUMNS if is_brief else _RUN_COLUMNS
    return Statement(
        f"select next_before::text, looked_at, looked_back_to, {columns} "
        "from {schema}.list_page(%s::text[], %s::text[], %s::text::timestamptz, "
        "%s::text::timestamptz, %s::text::uuid, %s::int, %s::int, p_payload => %s::text::jsonb) as page",
        (
            None if patterns is None else list(patterns),
            None if statuses is None else list(statuses),
            utc_text(created_from),
            utc_text(created_before),
            before and str(before),
            limit,
            looks,
            payload,
        ),
        _read_page,
        is_repeatable=True,
    )


def list_events(
    run_id: UUID, *, after: int = 0, limit: int = 10_000, as_text: bool = False
) -> Statement[list[RunEvent]]:
    """Return the events of a run in their order, those above ``after``; ``as_text``: data as ``JsonText``."""
    return Statement(
        "select id, workflow_id::text, event_type, data::text, created_at "
        "from {schema}.list_events(%s::text::uuid, %s::bigint, %s::int)",
        (str(run_id), after, limit),
        lambda rows: _read_events(rows, JsonText if as_text else _decode_shown),
        is_repeatable=True,
    )


def ended_runs(run_ids: Sequence[UUID]) -> Statement[set[UUID]]:
    """Return those of the runs that have ended."""
    return Statement(
        "select id::text from {schema}.ended_runs(%s::text[]::uuid[])",
        ([str(run_id) for run_id in run_ids],),
        lambda rows: {UUID(row[0]) for row in rows},
        is_repeatable=True,
    )


def _read_ids(rows: Rows) -> list[UUID]:
    return [UUID(row[0]) for row in rows]


def _read_runs(rows: Rows, decode: Callable[[str], Any]) -> list[Run]:
    return [_read_run(decode, *row) for row in rows]


def _read_page(rows: Rows) -> RunsFound:
    next_before, looked_at, looked_back_to, *_ = rows[0]
    return RunsFound(
        _read_runs([row[3:] for row in rows if row[3] is not None], _decode_shown),
        next_before and UUID(next_before),
        looked_at,
        looked_back_to and _in_utc(looked_back_to),
    )


def _read_run(
    decode: Callable[[str], Any],
    id_: str,
    type_: str,
    payload: str | None,
    status: Any,
    priority: int,
    run_at: datetime,
    *rest: Any,
) -> Run:
    key, attempt, max_attempts, leased_by, lease_until, last_error, result, created_at, *others = rest
    updated_at, deleted_at, fencing_token, parent_id, finished_at, *may_read = others
    return Run(
        id=UUID(id_),
        type=type_,
        payload=None if payload is None else decode(payload),
        status=status,
        priority=priority,
        run_at=_in_utc(run_at),
        idempotency_key=key,
        attempt=attempt,
        max_attempts=max_attempts,
        leased_by=leased_by,
        lease_until=lease_until and _in_utc(lease_until),
        last_error=last_error,
        result=None if result is None else decode(result),
        created_at=_in_utc(created_at),
        updated_at=_in_utc(updated_at),
        deleted_at=deleted_at and _in_utc(deleted_at),
        fencing_token=fencing_token,
        parent_id=parent_id and UUID(parent_id),
        finished_at=finished_at and _in_utc(finished_at),
        hidden=frozenset(name for name, may in zip(_CONTENTS, may_read, strict=True) if not may),
    )


def _read_events(rows: Rows, decode: Callable[[str], Any]) -> list[RunEvent]:
    return [
        RunEvent(id_, UUID(run_id), event_type, decode("{}" if data is None else data), _in_utc(created_at))
        for id_, run_id, event_type, data, created_at in rows
    ]


def _decode_shown(text: str) -> Any:
    """Decode JSON to show it; what Python cannot hold stays the text that the database has."""
    try:
        return decode(text)
    except ValueError:
        return text


def _in_utc(time: datetime) -> datetime:
    return time.astimezone(UTC)
