"""What producers and operators change."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from simpleworkflow.codec import encode_payload
from simpleworkflow.database import Rows, Statement
from simpleworkflow.model import NewRun, Submitted


def submit_run(new: NewRun) -> Statement[Submitted]:
    """Record one run; only with an idempotency key may it be sent twice."""
    return Statement(
        "select id::text, created from {schema}.submit(%s::text, %s::text::jsonb, %s::text, %s::int, "
        "%s::text::timestamptz, %s::double precision, %s::int)",
        (
            new.type,
            encode_payload(new.payload),
            new.idempotency_key,
            new.priority,
            new.run_at and new.run_at.isoformat(),
            new.delay_seconds,
            new.max_attempts,
        ),
        lambda rows: _read_submitted(rows)[0],
        is_repeatable=new.idempotency_key is not None,
    )


def submit_runs(news: Sequence[NewRun]) -> Statement[list[Submitted]]:
    """Record many runs in one statement; one answer for each, in the order given."""
    return Statement(
        "select id::text, created from {schema}.submit_many(%s::text[], %s::text[]::jsonb[], %s::text[], %s::int[], "
        "%s::text[]::timestamptz[], %s::double precision[], %s::int[])",
        (
            [new.type for new in news],
            [encode_payload(new.payload) for new in news],
            [new.idempotency_key for new in news],
            [new.priority for new in news],
            [new.run_at and new.run_at.isoformat() for new in news],
            [new.delay_seconds for new in news],
            [new.max_attempts for new in news],
        ),
        _read_submitted,
        is_repeatable=all(new.idempotency_key is not None for new in news),
    )


def cancel_runs(run_ids: Sequence[UUID], reason: str | None) -> Statement[dict[UUID, bool]]:
    """Cancel runs; return for each that exists whether this changed it."""
    return Statement(
        "select id::text, changed from {schema}.cancel(%s::text[]::uuid[], %s::text)",
        ([str(run_id) for run_id in run_ids], reason),
        _read_changed,
        is_repeatable=True,
    )


def reopen_runs(run_ids: Sequence[UUID], attempts: int, reason: str | None) -> Statement[dict[UUID, bool]]:
    """Give failed or cancelled runs a new budget; return for each that exists whether this changed it."""
    return Statement(
        "select id::text, changed from {schema}.reopen(%s::text[]::uuid[], %s::int, %s::text)",
        ([str(run_id) for run_id in run_ids], attempts, reason),
        _read_changed,
    )


def _read_submitted(rows: Rows) -> list[Submitted]:
    return [Submitted(UUID(id_), created) for id_, created in rows]


def _read_changed(rows: Rows) -> dict[UUID, bool]:
    return {UUID(id_): changed for id_, changed in rows}
