"""The tally: what a worker counts, read by whoever serves it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simpleworkflow.metrics import Tallies, Tally
from simpleworkflow.metrics.tally import BOUNDS_SECONDS, OTHER, TYPES_MAX
from simpleworkflow.statements import Claimed, Finished


@pytest.fixture
def tallies() -> Iterator[Tallies]:
    tallies = Tallies()
    yield tallies
    tallies.close()


@pytest.fixture
def tally(tallies: Tallies) -> Tally:
    return a_tally(tallies)


def a_tally(tallies: Tallies) -> Tally:
    tally = Tally.create()
    tallies.add(tally, lambda: 2)
    return tally


def claimed(type_: str, waited: float | None = 0.0) -> Claimed:
    return Claimed("id", type_, "{}", 1, 3, 1, "", False, None if waited is None else -waited)


def finished(status: str, *, id_: str = "id", seconds: float = 0.0, is_last: bool = False) -> Finished:
    return Finished(id_, 1, status, None, None, None, "a.b", seconds, is_last)


def test_the_end_of_an_attempt_is_what_the_database_made_of_it(tallies: Tallies, tally: Tally) -> None:
    batch = [
        finished("succeeded"),
        finished("failed"),
        finished("pending"),
        finished("pending", is_last=True),
        finished("succeeded", id_="zombie"),
    ]

    tally.count_finished(batch, refused={"zombie"})

    counts = tallies.figures().types["a.b"].counts
    assert {name: count for name, count in counts.items() if count} == {
        "succeeded": 1,
        "failed": 2,
        "retried": 1,
        "refused": 1,
    }


def test_a_wait_falls_into_its_bucket_and_one_not_told_into_none(tallies: Tallies, tally: Tally) -> None:
    tally.count_claimed(
        [claimed("a.b", 0.005), claimed("a.b", 0.006), claimed("a.b", 1e9), claimed("a.b", None)]
    )

    one = tallies.figures().types["a.b"]
    assert one.counts["claimed"] == 4
    assert (one.wait.buckets[0], one.wait.buckets[1], one.wait.buckets[-1]) == (1, 1, 1)
    assert sum(one.wait.buckets) == 3
    assert one.wait.sum_seconds == pytest.approx(1e9 + 0.011)
    assert len(one.wait.buckets) == len(BOUNDS_SECONDS) + 1


def test_types_beyond_the_bound_are_counted_together(tallies: Tallies, tally: Tally) -> None:
    tally.count_claimed([claimed(f"made.up.{number}") for number in range(TYPES_MAX + 7)] * 2)

    types = tallies.figures().types
    assert len(types) == TYPES_MAX + 1
    assert types[OTHER].counts["claimed"] == 14


def test_types_are_bounded_over_all_processes_too(tallies: Tallies) -> None:
    for process in range(3):
        a_tally(tallies).count_claimed([claimed(f"of.{process}.{number}") for number in range(60)])

    types = tallies.figures().types
    assert len(types) == TYPES_MAX + 1
    assert sum(one.counts["claimed"] for one in types.values()) == 180


def test_the_longest_type_keeps_its_name(tallies: Tallies, tally: Tally) -> None:
    tally.count_released("x" * 200)

    assert tallies.figures().types["x" * 200].counts["released"] == 1


def test_what_a_process_had_counted_outlives_it_and_what_it_held_does_not(tallies: Tallies) -> None:
    first, second = a_tally(tallies), a_tally(tallies)
    for tally in (first, second):
        tally.set_capacity(10)
        tally.set_away(True)
        tally.count_expired(3)
        tally.count_cancelled("a.b")

    tallies.retire(first)

    figures = tallies.figures()
    assert (figures.capacity, figures.away, tallies.held_count(), tallies.process_count()) == (10, 1, 2, 1)
    assert (figures.expired, figures.outages, figures.types["a.b"].counts["cancelled"]) == (6, 2, 2)
    assert tallies.ended_count() == 1


def test_a_tally_that_never_began_to_count_can_be_given_up(tallies: Tallies) -> None:
    tallies.retire(Tally.create())

    assert tallies.ended_count() == 0


def test_another_process_reads_what_is_written(tallies: Tallies, tally: Tally) -> None:
    import os

    reader = Tally(os.dup(tally.fd))
    tally.count_error()

    assert reader.figures().errors == 1
    reader.close()
