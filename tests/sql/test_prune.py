"""Ended runs leave when they are old enough, whole, and nothing that somebody may still need goes with them."""

from __future__ import annotations

import pytest

from builders import (
    Database,
    a_held_run,
    a_run,
    age,
    ask,
    attempt,
    cancel,
    count,
    expire,
    finish,
    lapse,
    reopen,
    rewrite,
    submit,
)
from simpleworkflow import statements
from simpleworkflow.model import STATUSES, NewRun, Status
from waits import blocked, in_thread

DAY = 86_400
ENDED: tuple[Status, ...] = ("succeeded", "failed", "cancelled")


def prune(db: Database, seconds: float = DAY, *, limit: int = 1000, **narrowed) -> int:
    """Prune one batch; return how many runs it deleted."""
    patterns, statuses = narrowed.get("patterns"), narrowed.get("statuses")
    return ask(db, statements.prune_runs(seconds, patterns, statuses, limit=limit)).runs


def an_old_run(db: Database, *, status: str = "succeeded", days: float = 2, **options) -> str:
    run_id = a_run(db, status=status, **options)
    age(db, run_id, days * DAY)
    return run_id


def remaining(db: Database) -> set[str]:
    return {str(row[0]) for row in db.execute("select id from workflow_run").fetchall()}


@pytest.mark.parametrize("status", STATUSES)
def test_only_a_run_that_has_ended_is_pruned_however_old_it_is(db, status):
    an_old_run(db, status=status, days=1000)

    pruned = prune(db)

    assert pruned == (status in ENDED)
    assert count(db, "workflow_run") == count(db, "workflow_event", "event_type = 'created'") == 1 - pruned


def test_age_counts_from_the_end_not_from_the_beginning(db):
    old, young = an_old_run(db), a_run(db, status="succeeded")
    rewrite(db, young, "created_at = created_at - interval '9 days'")

    assert prune(db) == 1
    assert old not in remaining(db) == {young}


def test_the_events_of_a_pruned_run_go_with_it_and_those_of_others_stay(db):
    held = a_held_run(db)
    finish(db, held, status="failed", error="no")
    reopen(db, held.id)
    cancel(db, held.id)
    age(db, held, 2 * DAY)
    other = a_run(db, status="succeeded")

    assert prune(db) == 1
    assert count(db, "workflow_event", "workflow_id = %s", held.id) == 0
    assert count(db, "workflow_event", "workflow_id = %s", other) == 3


def test_patterns_and_statuses_narrow_it(db):
    kept = [
        an_old_run(db, type="other.v1"),
        an_old_run(db, type="billingx.v1"),
        an_old_run(db, type="billing.v1", status="failed"),
    ]
    an_old_run(db, type="billing.v1")
    an_old_run(db, type="billing.a_b.v1", status="cancelled")

    assert prune(db, patterns=["billing.%"], statuses=["succeeded", "cancelled"]) == 2
    assert remaining(db) == set(kept)


def test_a_batch_holds_the_oldest_and_the_next_goes_on_from_there(db):
    ids = [an_old_run(db, days=days) for days in (2, 5, 3, 4)]

    first = ask(db, statements.prune_runs(DAY, None, None, limit=2))
    left = remaining(db)
    second = ask(db, statements.prune_runs(DAY, None, None, limit=2, reached_at=first.reached_at))

    assert left == {ids[0], ids[2]}
    assert (first.runs, second.runs, remaining(db)) == (2, 2, set())
    assert first.reached_at < second.reached_at


def test_a_hidden_run_is_pruned_like_others(db):
    run_id = an_old_run(db)
    db.execute("update workflow_run set deleted_at = now() where id = %s", [run_id])

    assert prune(db) == 1


def test_a_child_stays_as_long_as_its_parent_may_ask_for_it(db):
    parent, child = a_run(db, status="leased"), an_old_run(db)
    rewrite(db, child, f"parent_id = '{parent}'")

    assert prune(db) == 0
    lapse(db, parent)
    expire(db)
    cancel(db, parent)
    assert prune(db) == 1


def test_a_run_that_somebody_holds_locked_is_left_for_the_next_time(db, connection):
    run_id, _ = an_old_run(db), an_old_run(db)
    other = connection()

    with other.transaction():
        other.execute("select from workflow_run where id = %s for update", [run_id])
        assert prune(db) == 1
    assert prune(db) == 1


def test_a_pruned_key_is_free_again(db):
    first = an_old_run(db, status="cancelled", idempotency_key="k")

    assert prune(db) == 1
    assert submit(db, idempotency_key="k") != first


def test_a_rolled_back_prune_has_deleted_nothing(db):
    an_old_run(db)

    with db.transaction(force_rollback=True):
        assert prune(db) == 1

    assert (count(db, "workflow_run"), count(db, "workflow_event")) == (1, 3)


def test_nothing_else_may_delete_also_not_in_a_transaction_that_pruned(db):
    an_old_run(db)
    kept = a_run(db, status="succeeded")

    db.execute("begin")
    prune(db)

    refused = attempt(db, "delete from workflow_run")

    db.execute("commit")
    assert (refused, remaining(db)) == ("WF001", {kept})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("null", "p_ended_before: expected a time"),
        ("now(), null, '{pending}'", "p_statuses: expected succeeded, failed or cancelled"),
        ("now(), null, array[null]::text[]", "p_statuses: expected"),
        ("now(), null, null, 0", "p_limit: expected more than 0, got 0"),
        ("now(), null, null, null", "p_limit: expected more than 0, got null"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_one_line(db, arguments, said):
    with pytest.raises(Exception, match=said) as caught:
        db.execute(f"select prune({arguments})")

    assert caught.value.sqlstate == "WF002"


def test_what_would_be_pruned_is_counted_without_touching_it(db):
    an_old_run(db)
    an_old_run(db, status="failed", type="a.b")
    an_old_run(db, status="pending")
    a_run(db, status="succeeded")

    counted = [
        ask(db, statements.count_prunable_runs(DAY, *narrowed, looks=1000)).runs
        for narrowed in ((None, None), (["a.%"], None), (None, ["succeeded"]), (["a.%"], ["succeeded"]))
    ]

    assert counted == [2, 1, 1, 0]
    assert count(db, "workflow_run") == 4


@pytest.mark.fault("Concurrency", "prune of a key's run between a batch's insert and its answer", "P9")
def test_a_key_that_is_pruned_in_the_middle_of_a_submit_gets_a_new_run(db, connection):
    """The producer's insert meets the key, waits for the lock of its own making, and then the run is gone."""
    old = an_old_run(db, idempotency_key="k")
    producer, pruner = connection(), connection()
    # The producer stops between its insert and its look for the run that has the key: at its next new row.
    news = [NewRun(type="a.b", idempotency_key="k"), NewRun(type="a.b", idempotency_key="l")]
    holder = connection()
    holder.execute("begin")
    submit(holder, "a.b", idempotency_key="l")

    waiting = in_thread(lambda: submit_chunk(producer, news))
    blocked(db, producer)
    assert prune(pruner) == 1
    holder.execute("commit")

    answers = waiting.result(timeout=20)
    assert [answer.created for answer in answers] == [True, False]
    assert {str(answer.id) for answer in answers} == remaining(db)
    assert old not in remaining(db)


def submit_chunk(db: Database, news: list[NewRun]) -> list:
    return [answer for statement in statements.submit_runs(news) for answer in ask(db, statement)]
