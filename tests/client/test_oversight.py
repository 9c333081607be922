"""Counts, types and pauses, asked through both clients."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

import builders
from builders import Database, a_held_run, a_run, claim, finish, submit
from simpleworkflow import InvalidInput
from simpleworkflow.model import STATUSES


def test_stats_tell_each_status_what_is_due_and_what_happened(client: Any, db: Database) -> None:
    for status in ("pending", "succeeded", "succeeded", "failed"):
        a_run(db, status=status)

    stats = client.stats(window_seconds=60)

    assert {status: runs for status, runs in stats.runs.items() if runs} == {
        "pending": 1,
        "succeeded": 2,
        "failed": 1,
    }
    assert list(stats.runs) == list(STATUSES)
    assert (stats.due, stats.due_is_exact, stats.step_seconds, stats.at.tzinfo) == (1, True, 10, UTC)
    assert stats.oldest_due_seconds >= 0
    assert len(stats.series) == 7
    assert (sum(point.submitted for point in stats.series), sum(point.failed for point in stats.series)) == (
        4,
        1,
    )
    assert 2 / 70 <= stats.rates["succeeded"] <= 2 / 60


def test_an_empty_installation_has_nothing_and_nothing_is_due(client: Any) -> None:
    stats = client.stats()

    assert set(stats.runs.values()) == {0}
    assert set(stats.rates.values()) == {0.0}
    assert (stats.due, stats.oldest_due_seconds) == (0, None)
    assert client.types() == []


def test_a_type_is_summed_up_with_who_handles_it(client: Any, db: Database) -> None:
    db.execute("select register_types('{a.%}', 'go')")
    finish(db, a_held_run(db, type="a.v1"))
    submit(db, "b.v1")

    handled, unhandled = client.types()

    assert (handled.type, handled.handled_by, handled.runtime, handled.is_enabled) == (
        "a.v1",
        "a.%",
        "go",
        True,
    )
    assert (handled.runs["succeeded"], handled.runs["pending"], handled.wait.count, handled.run.count) == (
        1,
        0,
        1,
        1,
    )
    assert 0 <= handled.run.p50 <= handled.run.p95 <= handled.run.p99
    assert (unhandled.type, unhandled.handled_by, unhandled.wait) == ("b.v1", None, None)
    assert unhandled.oldest_due_seconds >= 0


def test_who_asks_where_nobody_has_folded_for_long_folds_first(client: Any, db: Database) -> None:
    many = "select 1, 'a.v1', 'succeeded' from generate_series(1, 60000)"
    db.execute(f"insert into workflow_delta (runs, type, to_status) {many}")

    assert client.stats().runs["succeeded"] == 60_000
    db.execute(f"insert into workflow_delta (runs, type, to_status) {many}")
    assert client.types()[0].runs["succeeded"] == 120_000
    assert builders.count(db, "workflow_delta") <= 10_000
    assert client.recount() == 1
    assert client.stats().runs["succeeded"] == 0


def test_a_pattern_is_paused_with_a_reason_and_resumed(client: Any, db: Database) -> None:
    submit(db, "a.b.v1")

    assert client.pause("a.%", reason="the bank\nis down")
    assert not client.pause("a.%")
    assert claim(db) is None
    (pause,) = client.pauses()
    assert (pause.pattern, pause.reason, pause.paused_by) == ("a.%", "the bank\nis down", db.info.user)
    assert (pause.paused_at.tzinfo, pause.paused_for) == (UTC, None)
    assert client.types()[0].disabled_by == "a.%"

    assert client.resume("a.%")
    assert not client.resume("a.%")
    assert client.pauses() == []
    assert claim(db) is not None


@pytest.mark.parametrize("pattern", ["a b", "%%", "", None])
def test_what_is_no_pattern_cannot_be_paused(client: Any, pattern: Any) -> None:
    for verb in (client.pause, client.resume):
        with pytest.raises(InvalidInput, match="pattern: expected"):
            verb(pattern)


@pytest.mark.parametrize("window", [9, 2_592_001, 10.5, "300", None])
def test_a_window_that_nobody_keeps_is_refused_by_name(client: Any, window: Any) -> None:
    for verb in (client.stats, client.types):
        with pytest.raises(InvalidInput, match="window_seconds: expected"):
            verb(window_seconds=window)
