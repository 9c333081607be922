"""Where a worker looks for runs, with the time handed in."""

from __future__ import annotations

import pytest

from simpleworkflow.worker.lanes import WAIT_OTHERWISE, WAIT_SECONDS_MAX, WAIT_WHILE_FLOWING, Lanes

NOW = 1000.0
KNOWN = '{"(a.b,100,2026-11-27,01a2)"}'


def a_look_found(lanes: str, *, seconds: float = 0.01, is_full: bool = True) -> Lanes:
    looking = Lanes()
    looking.found(looking.where(NOW), lanes, seconds, NOW, count=9, is_full=is_full)
    return looking


def test_the_first_claim_looks_everywhere() -> None:
    assert Lanes().where(NOW)[:2] == ("{}", True)


def test_the_next_claims_look_where_runs_were_found() -> None:
    lanes = a_look_found(KNOWN)

    assert lanes.where(NOW + 0.01)[:2] == (KNOWN, False)


@pytest.mark.parametrize(("is_full", "factor"), [(True, WAIT_WHILE_FLOWING), (False, WAIT_OTHERWISE)])
def test_looks_cost_a_bounded_part_of_the_time(is_full: bool, factor: int) -> None:
    lanes = a_look_found(KNOWN, seconds=0.05, is_full=is_full)

    assert lanes.seconds_left(NOW) == pytest.approx(0.05 * factor)
    assert not lanes.where(NOW + 0.05 * factor - 0.001).is_look
    assert lanes.where(NOW + 0.05 * factor + 0.001).is_look


def test_a_look_that_is_on_its_way_holds_back_others() -> None:
    lanes = Lanes()
    lanes.where(NOW)

    assert not lanes.where(NOW + 0.01).is_look


def test_a_look_whose_answer_is_lost_is_made_again() -> None:
    lanes = Lanes()
    lanes.where(NOW)

    assert lanes.where(NOW + 1).is_look


def test_an_older_answer_does_not_replace_what_a_look_has_found() -> None:
    lanes = a_look_found(KNOWN)
    older = lanes.where(NOW + 0.01)
    look = lanes.where(NOW + 10)
    lanes.found(look, "{new}", 0.01, NOW + 10, count=9, is_full=True)

    lanes.found(older, "{old}", None, NOW + 11, count=9, is_full=True)

    assert lanes.where(NOW + 10.01).lanes == "{new}"


@pytest.mark.parametrize(("was_full", "is_look"), [(True, True), (False, False)])
def test_where_nothing_is_left_a_look_that_was_worth_it_is_followed_by_another(
    was_full: bool, is_look: bool
) -> None:
    lanes = a_look_found(KNOWN, seconds=0.1, is_full=was_full)

    lanes.found(lanes.where(NOW + 0.01), KNOWN, None, NOW + 0.02, count=1, is_full=False)

    assert lanes.where(NOW + 0.02).is_look is is_look


@pytest.mark.parametrize("seconds", [10.0, 3600.0, -3600.0])
def test_whatever_a_look_has_cost_the_next_one_is_not_far(seconds: float) -> None:
    lanes = a_look_found(KNOWN, seconds=seconds)

    assert 0 <= lanes.seconds_left(NOW) <= WAIT_SECONDS_MAX


def test_a_wake_up_for_what_is_not_where_runs_were_found_is_a_reason_to_look() -> None:
    lanes = a_look_found(KNOWN, seconds=0.5, is_full=False)
    lanes.wake()

    lanes.found(lanes.where(NOW + 0.01), KNOWN, None, NOW + 0.02, count=0, is_full=False)

    assert lanes.where(NOW + 0.02).is_look


def test_a_wake_up_for_what_is_where_runs_were_found_is_none() -> None:
    lanes = a_look_found(KNOWN, seconds=0.5, is_full=False)
    lanes.wake()

    lanes.found(lanes.where(NOW + 0.01), KNOWN, None, NOW + 0.02, count=1, is_full=False)

    assert not lanes.where(NOW + 0.02).is_look


def test_a_wake_up_is_worth_a_look_that_is_cheap() -> None:
    lanes = a_look_found(KNOWN, seconds=0.001, is_full=True)

    lanes.wake()

    assert lanes.where(NOW + 0.001).is_look


def test_a_look_that_is_cheap_is_held_back_only_while_runs_flow() -> None:
    assert a_look_found(KNOWN, seconds=0.001, is_full=False).where(NOW).is_look
    assert not a_look_found(KNOWN, seconds=0.001, is_full=True).where(NOW).is_look
