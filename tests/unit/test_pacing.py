"""When a worker claims next, with the time handed in."""

from __future__ import annotations

import pytest

from simpleworkflow.worker.pacing import BUSY_SECONDS, Pace

NOW = 1000.0


def test_an_idle_worker_looks_again_by_the_poll_interval() -> None:
    pace = Pace(2.0)

    pace.found_nothing(NOW, due_in_seconds=None, wakes=pace.wakes)

    assert 1.6 <= pace.seconds_left(NOW) <= 2.0


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
