"""When a worker claims next, with the time handed in."""

from __future__ import annotations

import pytest

from simpleworkflow.worker.pacing import BUSY_SECONDS, Pace

NOW = 1000.0


def test_an_idle_worker_looks_again_by_the_poll_interval() -> None:
    pace = Pace(2.0)

    pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

    assert 2.0 <= pace.seconds_left(NOW) <= 2.1


def test_a_run_that_is_due_earlier_is_claimed_when_it_is_due() -> None:
    pace = Pace(2.0)

    pace.found_nothing(NOW, due_in_seconds=0.3, wakes=pace.wakes)

    assert pace.seconds_left(NOW) == pytest.approx(0.3)


def test_an_older_answer_does_not_put_off_what_a_newer_one_has_seen() -> None:
    pace = Pace(2.0)
    pace.found_nothing(NOW, due_in_seconds=0.3, wakes=pace.wakes)

    pace.found_nothing(NOW + 0.1, due_in_seconds=None, wakes=pace.wakes)

    assert pace.seconds_left(NOW + 0.1) == pytest.approx(0.2)


def test_a_wake_up_while_a_claim_is_on_its_way_is_not_forgotten() -> None:
    pace = Pace(2.0)
    sent_with = pace.wakes

    pace.wake()
    pace.found_nothing(NOW, due_in_seconds=None, wakes=sent_with)

    assert pace.seconds_left(NOW) <= 0


def test_runs_that_came_are_followed_by_another_claim_at_once() -> None:
    pace = Pace(2.0)
    pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

    pace.took_some(NOW + 1, is_full=False, has_room=True)

    assert pace.seconds_left(NOW + 1) <= 0


def test_two_claims_at_once_only_while_they_come_back_full() -> None:
    pace = Pace(2.0)

    assert not pace.may_claim(is_claiming=True)
    pace.took_some(NOW, is_full=True, has_room=True)
    assert pace.may_claim(is_claiming=True)
    pace.took_some(NOW, is_full=False, has_room=True)
    assert not pace.may_claim(is_claiming=True)


def test_a_worker_is_busy_when_runs_keep_coming_or_it_has_no_room() -> None:
    pace = Pace(2.0)

    assert not pace.took_some(NOW, is_full=False, has_room=True)
    assert pace.took_some(NOW, is_full=False, has_room=False)
    assert pace.took_some(NOW + 2 * BUSY_SECONDS, is_full=False, has_room=True)


def test_an_older_answer_that_found_nothing_does_not_put_off_what_a_full_one_left() -> None:
    pace = Pace(2.0)
    sent_with = pace.wakes

    pace.took_some(NOW, is_full=True, has_room=True)
    pace.found_nothing(NOW, due_in_seconds=None, wakes=sent_with)

    assert pace.seconds_left(NOW) <= 0


@pytest.mark.parametrize("poll_seconds", [0.01, 0.5, 2.0, 60.0])
def test_no_poll_comes_before_its_interval_or_long_after_it(poll_seconds: float) -> None:
    for _ in range(200):
        pace = Pace(poll_seconds)

        pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

        assert poll_seconds - 1e-6 <= pace.seconds_left(NOW) <= poll_seconds + 0.1 + 1e-6


def test_a_newer_look_of_another_worker_stands_for_the_own_one() -> None:
    pace = Pace(2.0)
    pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

    pace.others_found_nothing(NOW + 1.5, None)

    assert NOW + 3.5 - 1e-6 <= NOW + pace.seconds_left(NOW) <= NOW + 3.6 + 1e-6


@pytest.mark.parametrize("poll_seconds", [0.05, 1.0, 2.0, 30.0])
def test_whoever_looked_last_looks_again_before_all_others(poll_seconds: float) -> None:
    for _ in range(200):
        looker, other = Pace(poll_seconds), Pace(poll_seconds)
        other.found_nothing(NOW - 1.0, due_in_seconds=None, wakes=other.wakes)

        looker.found_nothing(NOW, due_in_seconds=None, wakes=looker.wakes)
        other.others_found_nothing(NOW, None)

        assert looker.seconds_left(NOW) < other.seconds_left(NOW)


def test_a_look_of_another_worker_does_not_put_off_what_it_saw_coming() -> None:
    pace = Pace(2.0)
    pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

    pace.others_found_nothing(NOW + 1.5, NOW + 2.2)

    assert pace.seconds_left(NOW) == pytest.approx(2.2)


def test_an_older_look_of_another_worker_puts_off_nothing() -> None:
    pace = Pace(2.0)
    pace.found_nothing(NOW, due_in_seconds=0.3, wakes=pace.wakes)

    pace.others_found_nothing(NOW - 0.1, None)

    assert pace.seconds_left(NOW) == pytest.approx(0.3)


def test_a_look_of_another_worker_does_not_put_off_a_claim_that_was_woken() -> None:
    pace = Pace(2.0)
    pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

    pace.wake()
    pace.others_found_nothing(NOW + 1.5, None)

    assert pace.seconds_left(NOW) <= 0
