"""What deletes ended runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from simpleworkflow.database import Statement
from simpleworkflow.model import utc_text


class Pruned(NamedTuple):
    """How many runs one batch deleted, and the end of the last of them, from where the next batch goes on."""

    runs: int
    reached_at: datetime | None


class Counted(NamedTuple):
    """How many runs a part has, and from where the next part goes on (None: it was the last)."""

    runs: int
    reached_at: datetime | None


def prune_runs(
    older_than_seconds: float,
    patterns: Sequence[str] | None,
    statuses: Sequence[str] | None,
    *,
    limit: int,
    reached_at: datetime | None = None,
) -> Statement[Pruned]:
    """Delete a batch of runs that ended so long ago, by the database's clock, with their events."""
    return Statement(
        "select pruned, reached_at from {schema}.prune("
        "clock_timestamp() - make_interval(secs => %s::double precision), "
        "%s::text[], %s::text[], %s::int, %s::text::timestamptz)",
        (
            older_than_seconds,
            _list(patterns),
            _list(statuses),
            limit,
            utc_text(reached_at),
        ),
        lambda rows: Pruned(*rows[0]),
        is_repeatable=True,
        is_change=True,
    )


def count_prunable_runs(
    older_than_seconds: float,
    patterns: Sequence[str] | None,
    statuses: Sequence[str] | None,
    *,
    looks: int,
    reached_at: datetime | None = None,
) -> Statement[Counted]:
    """Count the runs there are to prune, among the ``looks`` that ended first since ``reached_at``."""
    return Statement(
        "select runs, reached_at from {schema}.count_prunable("
        "clock_timestamp() - make_interval(secs => %s::double precision), "
        "%s::text[], %s::text[], %s::text::timestamptz, %s::int)",
        (
            older_than_seconds,
            _list(patterns),
            _list(statuses),
            utc_text(reached_at),
            looks,
        ),
        lambda rows: Counted(*rows[0]),
        is_repeatable=True,
    )


def _list(values: Sequence[str] | None) -> list[str] | None:
    return None if values is None else list(values)
