"""How many runs a worker asks for."""

from __future__ import annotations

from simpleworkflow.worker.room import AHEAD_MAX, BATCH_MAX, Room


def a_room(concurrency: int = 10, *, seconds: float = 1.0) -> Room:
    room = Room(concurrency, slots=concurrency + AHEAD_MAX)
    for _ in range(300):
        room.took(seconds)
    return room


def test_long_runs_are_claimed_for_the_free_places_only() -> None:
    assert a_room(10).capacity() == 10
    assert a_room(10).limit(held=8, free_slots=402) == 2


def test_short_runs_are_claimed_ahead_up_to_a_bound() -> None:
    assert a_room(10, seconds=0.001).capacity() == 10 + AHEAD_MAX
    assert 100 < a_room(10, seconds=0.01).capacity() <= 110


def test_runs_that_turn_out_to_be_long_end_the_claiming_ahead() -> None:
    room = a_room(10, seconds=0.001)

    room.claim_nothing_ahead()

    assert room.capacity() == 10


def test_half_of_the_room_is_left_to_the_other_exchanger() -> None:
    assert a_room(100).limit(held=0, free_slots=500) == 50
    assert a_room(1).limit(held=0, free_slots=401) == 1
    assert a_room(5000).limit(held=0, free_slots=5400) == BATCH_MAX


def test_what_was_asked_for_and_not_answered_counts_as_held() -> None:
    room = a_room(10)
    room.claiming = 10

    assert room.limit(held=0, free_slots=410) == 0


def test_while_a_suspect_waits_nothing_is_claimed_until_nothing_is_held() -> None:
    room = a_room(10)
    room.is_to_be_empty = True

    assert room.limit(held=1, free_slots=409) == 0
    assert room.limit(held=0, free_slots=410) == 5
