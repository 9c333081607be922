"""What there is, what happens, and what is paused: counts that nobody has to count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from simpleworkflow.codec import decode
from simpleworkflow.database import Rows, Statement
from simpleworkflow.model import RATES, STATUSES, Pause, Percentiles, Stats, StatsPoint, TypeSummary


def look_due() -> Statement[str]:
    """Return what is due, for ``read_stats`` and ``list_types``; while runs flow this is the dear part of them."""
    return Statement("select {schema}.look_due()::text", (), lambda rows: str(rows[0][0]), is_repeatable=True)


def read_stats(window_seconds: float, *, due: str | None = None) -> Statement[Stats | None]:
    """Return counts, rates and what is due, looked for now unless it is given; None where too much is unfolded."""
    return Statement(
        "select at, runs::text, rates::text, oldest_due_seconds, due, due_is_exact, step_seconds, series::text "
        "from {schema}.stats(%s::double precision, %s::text::jsonb)",
        (window_seconds, due),
        _read_stats,
        is_repeatable=True,
    )


def list_types(window_seconds: float, *, due: str | None = None) -> Statement[list[TypeSummary] | None]:
    """Return a summary of each type; None where too much is unfolded: fold first.  ``due``: as for ``read_stats``."""
    return Statement(
        "select type, runs::text, rates::text, oldest_due_seconds, is_enabled, disabled_by, handled_by, runtime, "
        "description, wait::text, run::text from {schema}.types(%s::double precision, %s::text::jsonb)",
        (window_seconds, due),
        _read_types,
        is_repeatable=True,
    )


def fold_counts(*, limit: int = 10_000, pause_seconds: float = 0.0) -> Statement[int | None]:
    """Sum up to ``limit`` deltas; return how many that were, None when somebody else does it, or did just now."""
    return Statement(
        "select {schema}.fold(%s::int, %s::double precision)",
        (limit, pause_seconds),
        lambda rows: None if rows[0][0] is None else int(rows[0][0]),
        is_repeatable=True,
    )


def recount_runs() -> Statement[int]:
    """Put right what was counted wrongly; return how many counts that were."""
    return Statement(
        "select {schema}.recount()",
        (),
        lambda rows: int(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def pause_pattern(pattern: str, reason: str | None) -> Statement[bool]:
    """Let nothing that the pattern covers be claimed; return whether that changed anything."""
    return Statement(
        "select {schema}.pause(%s::text, %s::text)",
        (pattern, reason),
        lambda rows: bool(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def resume_pattern(pattern: str) -> Statement[bool]:
    """Let what the pattern covers be claimed again; return whether that changed anything."""
    return Statement(
        "select {schema}.resume(%s::text)",
        (pattern,),
        lambda rows: bool(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def list_pauses() -> Statement[list[Pause]]:
    """Return the patterns that are paused."""
    return Statement(
        "select pattern, reason, paused_at, paused_by, paused_for from {schema}.list_pauses()",
        (),
        lambda rows: [
            Pause(pattern, reason, paused_at.astimezone(UTC), paused_by, paused_for)
            for pattern, reason, paused_at, paused_by, paused_for in rows
        ],
        is_repeatable=True,
    )


def _read_stats(rows: Rows) -> Stats | None:
    at, runs, rates, oldest_due_seconds, due, due_is_exact, step_seconds, series = rows[0]
    if runs is None:
        return None
    return Stats(
        at=at.astimezone(UTC),
        runs=_counts(decode(runs)),
        rates=_rates(decode(rates)),
        oldest_due_seconds=oldest_due_seconds,
        due=due,
        due_is_exact=due_is_exact,
        step_seconds=step_seconds,
        series=[_point(**point) for point in decode(series)],
    )


def _point(*, at: str, **happened: int) -> StatsPoint:
    return StatsPoint(at=datetime.fromisoformat(at).astimezone(UTC), **happened)


def _read_types(rows: Rows) -> list[TypeSummary] | None:
    if rows and rows[0][0] is None:
        return None
    return [_read_type(*row) for row in rows]


def _read_type(type_: str, runs: str, rates: str, *rest: Any) -> TypeSummary:
    oldest_due_seconds, is_enabled, disabled_by, handled_by, runtime, description, wait, run = rest
    return TypeSummary(
        type=type_,
        runs=_counts(decode(runs)),
        rates=_rates(decode(rates)),
        oldest_due_seconds=oldest_due_seconds,
        is_enabled=is_enabled,
        disabled_by=disabled_by,
        handled_by=handled_by,
        runtime=runtime,
        description=description,
        wait=_times(wait),
        run=_times(run),
    )


def _counts(runs: Mapping[str, int]) -> Mapping[str, int]:
    return {status: runs.get(status, 0) for status in STATUSES}


def _rates(rates: Mapping[str, float]) -> Mapping[str, float]:
    return {name: float(rates.get(name, 0)) for name in RATES}


def _times(text: str | None) -> Percentiles | None:
    found: dict[str, Any] = decode(text) if text else {"count": 0}
    if not found["count"]:
        return None
    p50, p95, p99 = found["seconds"]
    return Percentiles(p50, p95, p99, found["count"])
