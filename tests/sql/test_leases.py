"""Who lost a lease can change nothing; who holds one that has merely lapsed still can."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from builders import (
    Database,
    Held,
    a_held_run,
    ask,
    attempt,
    cancel,
    claim,
    column_of,
    events_of,
    expire,
    finish,
    heartbeat,
    lapse,
    last_event,
    progress,
    release,
    reopen,
    retry,
    row_of,
    status_of,
    submit,
)
from simpleworkflow import statements
from waits import blocked, in_thread

WRITES: dict[str, Callable[[Database, Held], object]] = {
    "succeed": finish,
    "fail": lambda db, held: finish(db, held, status="failed", error="late"),
    "retry": retry,
    "release": release,
    "heartbeat": lambda db, held: heartbeat(db, held) == "leased",
    "explicit heartbeat": lambda db, held: heartbeat(db, held, is_explicit=True) == "leased",
    "progress": progress,
}


def by_another(db: Database, held: Held) -> None:
    lapse(db, held)
    expire(db)
    assert claim(db, worker="another", pattern=held.type)


def by_the_same_worker(db: Database, held: Held) -> None:
    lapse(db, held)
    expire(db)
    assert claim(db, worker=held.worker, pattern=held.type)


def by_nobody(db: Database, held: Held) -> None:
    lapse(db, held)
    expire(db)


def by_another_that_finished(db: Database, held: Held) -> None:
    by_another(db, held)
    again = Held(held.id, held.type, 2, 2, "another")
    assert finish(db, again, result="theirs")


def by_release(db: Database, held: Held) -> None:
    release(db, held)
    # The attempt is 1 again: a fence by attempt would let the old slot in.
    assert claim(db, worker=held.worker, pattern=held.type)


def by_cancel(db: Database, held: Held) -> None:
    cancel(db, held.id)


def by_cancel_and_reopen(db: Database, held: Held) -> None:
    cancel(db, held.id)
    reopen(db, held.id)
    assert claim(db, worker=held.worker, pattern=held.type)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    "lost",
    [
        by_another,
        by_the_same_worker,
        by_nobody,
        by_another_that_finished,
        by_release,
        by_cancel,
        by_cancel_and_reopen,
    ],
)
def test_a_zombie_changes_nothing(module_db, lost, write):
    db = module_db
    held = a_held_run(db)
    lost(db, held)
    before, events = row_of(db, held.id), events_of(db, held)

    accepted = WRITES[write](db, held)

    assert accepted is False
    assert row_of(db, held.id) == before
    assert events_of(db, held) == events


@pytest.mark.parametrize("write", WRITES)
def test_a_lease_that_lapsed_but_was_not_expired_still_counts(module_db, write):
    held = a_held_run(module_db)

    lapse(module_db, held)
    accepted = WRITES[write](module_db, held)

    assert accepted is True


@pytest.mark.parametrize("write", ["succeed", "fail", "retry", "release", "heartbeat", "progress"])
def test_the_right_token_in_another_workers_hand_does_not_count(module_db, write):
    held = a_held_run(module_db, worker="holder")
    thief = Held(held.id, held.type, held.attempt, held.fencing_token, "thief")
    before = row_of(module_db, held.id)

    accepted = WRITES[write](module_db, thief)

    assert accepted is False
    assert row_of(module_db, held.id) == before


def test_a_token_from_the_future_does_not_count(db):
    held = a_held_run(db)
    forged = Held(held.id, held.type, 1, 2, held.worker)

    accepted = [WRITES[write](db, forged) for write in WRITES]

    assert not any(accepted)
    assert status_of(db, held.id) == "leased"


def test_a_heartbeat_tells_cancelled_from_lost(db):
    cancelled, lost, ended = a_held_run(db), a_held_run(db), a_held_run(db)
    cancel(db, cancelled.id)
    lapse(db, lost)
    expire(db)
    finish(db, ended)

    said = [heartbeat(db, one) for one in (cancelled, lost, ended)]

    assert said == ["cancelled", "lost", "lost"]


def test_a_heartbeat_for_a_run_that_does_not_exist_says_lost(db):
    held = Held("00000000-0000-7000-8000-000000000000", "a.b", 1, 1, "worker")

    said = heartbeat(db, held)

    assert said == "lost"


def test_a_heartbeat_never_shortens_a_lease(db):
    held = a_held_run(db, seconds=3600)
    before = column_of(db, held, "lease_until")

    heartbeat(db, held, seconds=1)

    assert column_of(db, held, "lease_until") == before


def test_an_explicit_heartbeat_leaves_an_event_with_its_seconds(db):
    held = a_held_run(db)

    heartbeat(db, held, seconds=45, is_explicit=True)

    kind, data = last_event(db, held)
    assert kind == "heartbeat"
    assert (data["seconds"], data["token"], data["worker"]) == (45, 1, "worker")


def test_a_batch_of_heartbeats_answers_for_each(db):
    held, cancelled = a_held_run(db), a_held_run(db)
    cancel(db, cancelled.id)

    said = ask(
        db, statements.heartbeat_runs("worker", [(held.id, 1), (cancelled.id, 1), (held.id, 1)], seconds=30)
    )

    assert said == {held.id: "leased", cancelled.id: "cancelled"}


def test_a_heartbeat_of_another_attempt_says_lost_and_keeps_nobody_from_the_run(db, connection):
    zombie = a_held_run(db)
    lapse(db, zombie)
    expire(db)
    beater = connection()

    with beater.transaction():
        said = heartbeat(beater, zombie)
        again = claim(db, worker="second", pattern=zombie.type)

    assert said == "lost"
    assert again is not None
    rows = db.execute(
        "select status from heartbeat('second', array[%s, %s]::uuid[], '{1, 2}')", [zombie.id, zombie.id]
    ).fetchall()
    assert sorted(rows) == [("leased",), ("lost",)]


def test_heartbeats_stay_out_of_the_indexes(db):
    indexed = db.execute(
        "select count(*) from pg_indexes where schemaname = %s and indexdef like '%%lease_until%%'",
        [db.schema],
    ).fetchone()

    assert indexed == (0,)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9, None])
def test_a_lease_without_a_sensible_end_is_refused(db, seconds):
    held = a_held_run(db)

    errors = [
        attempt(db, "select * from claim('w', '{%%}', 1, %s)", seconds),
        attempt(db, "select * from heartbeat('worker', %s::uuid[], '{1}', %s)", [held.id], seconds),
        attempt(db, "select * from heartbeat('worker', %s::uuid[], '{1}', %s, true)", [held.id], seconds),
    ]

    assert errors == ["WF002"] * 3


def test_a_lease_begins_when_a_claim_has_its_locks_however_long_it_waited(
    db: Database, connection: Callable[..., Database]
) -> None:
    run_id, claimer, locker = submit(db, "waited.for.v1"), connection(), connection()
    with locker.transaction():
        locker.execute("lock table workflow_run in access exclusive mode")
        claiming = in_thread(lambda: claim(claimer, pattern="waited.for.v1", seconds=1))
        blocked(locker, claimer)
        time.sleep(1.1)

    assert claiming.result() is not None
    assert expire(db) == {}
    assert column_of(db, run_id, "lease_until > updated_at + interval '0.99 seconds'")


def test_a_heartbeat_that_waited_for_a_lock_extends_by_all_its_seconds(
    db: Database, connection: Callable[..., Database]
) -> None:
    held, beater, locker = a_held_run(db, seconds=0.1), connection(), connection()
    with locker.transaction():
        locker.execute("lock table workflow_run in access exclusive mode")
        beating = in_thread(lambda: heartbeat(beater, held, seconds=1))
        blocked(locker, beater)
        time.sleep(1.1)

    assert beating.result() == "leased"
    assert expire(db) == {}
