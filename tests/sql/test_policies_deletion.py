"""A policy that keeps no succeeded runs: success is the deletion, fenced and ordered like the UPDATE it replaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from builders import (
    Database,
    Held,
    a_held_run,
    ask,
    claim,
    count,
    drop_policy,
    events_of,
    expire,
    finish,
    heartbeat,
    lapse,
    release,
    retry,
    set_policy,
    status_of,
    submit,
)
from simpleworkflow import statements
from simpleworkflow.statements import verify
from sql.interleaving import Session, Transaction, orders, play
from sql.racing import OPERATIONS
from waits import blocked, in_thread


def exists(db: Database, run_id: str | Held) -> bool:
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    return count(db, "workflow_run", "id = %s", run_id) == 1


def fail(db: Database, held: Held) -> bool:
    return finish(db, held, status="failed", error="no")


def violations(db: Database) -> list[tuple[str, str | None]]:
    return [(one.law, one.run_id) for one in ask(db, verify(60))]


@pytest.mark.parametrize("events", [True, False])
def test_a_run_that_succeeds_is_deleted_with_its_events_and_its_key_is_free_again(db, events):
    set_policy(db, "a.%", events=events, succeeded=False)
    first = a_held_run(db, type="a.b", idempotency_key="key")
    heartbeat(db, first, is_explicit=True)

    assert finish(db, first)

    assert (exists(db, first), count(db, "workflow_event")) == (False, 0)
    again = submit(db, "a.b", idempotency_key="key")
    assert (again != first.id, status_of(db, again)) == (True, "pending")
    assert violations(db) == []


@pytest.mark.parametrize(("ending", "status"), [(fail, "failed"), (retry, "pending"), (release, "pending")])
def test_a_run_that_does_not_succeed_stays(db, ending, status):
    set_policy(db, "a.%", succeeded=False)
    held = a_held_run(db, type="a.b")

    ending(db, held)

    assert status_of(db, held.id) == status
    assert events_of(db, held)[:2] == ["created", "leased"]


def test_the_policy_at_the_finish_decides_whatever_was_at_the_insert(db):
    before = a_held_run(db, type="a.b")
    set_policy(db, "a.%", succeeded=False)
    during = a_held_run(db, type="a.b")

    finish(db, before)
    drop_policy(db, "a.%")
    finish(db, during)

    assert (exists(db, before), status_of(db, during.id)) == (False, "succeeded")
    assert violations(db) == []


def test_one_batch_of_all_endings_answers_for_each_as_without_a_policy(db):
    set_policy(db, "gone.%", succeeded=False)
    held = {
        name: a_held_run(db, type=type_)
        for name, type_ in {
            "deleted": "gone.a",
            "kept": "kept.a",
            "failed": "gone.b",
            "retried": "gone.c",
            "foreign": "gone.d",
            "lost": "gone.e",
        }.items()
    }
    lapse(db, held["lost"])
    expire(db)
    status = dict.fromkeys(held, "succeeded") | {"failed": "failed", "retried": "pending"}
    token = {name: one.fencing_token + (name == "foreign") for name, one in held.items()}
    done = [statements.Finished(one.id, token[name], status[name]) for name, one in held.items()]

    answer = ask(db, statements.finish_runs("worker", done))

    assert answer == {held[name].id for name in ("deleted", "kept", "failed", "retried")}
    left = {name: status_of(db, one.id) for name, one in held.items() if exists(db, one)}
    assert left == {
        "kept": "succeeded",
        "failed": "failed",
        "retried": "pending",
        "foreign": "leased",
        "lost": "pending",
    }
    assert violations(db) == []


def test_a_run_twice_in_one_batch_is_deleted_and_answered_once(db):
    set_policy(db, "a.%", succeeded=False)
    held = a_held_run(db, type="a.b")
    done = [statements.Finished(held.id, 1, status) for status in ("failed", "succeeded", "succeeded")]

    rows = db.execute(
        "select finish('worker', %s::uuid[], %s, %s)",
        [[one.id for one in done], [1, 1, 1], [one.status for one in done]],
    ).fetchall()

    assert [str(row[0]) for row in rows] == [held.id]
    assert (exists(db, held), count(db, "workflow_event")) == (False, 0)


@pytest.mark.fault("Death, pause, leases", "a zombie's success under a policy that deletes it", "P3")
def test_a_zombie_deletes_nothing(db):
    set_policy(db, "a.%", succeeded=False)
    zombie = a_held_run(db, type="a.b", worker="first")
    lapse(db, zombie)
    expire(db)
    held = claim(db, worker="second")

    assert not finish(db, zombie)
    assert not finish(db, zombie, worker="second")
    assert not finish(db, held, worker="first")

    assert status_of(db, held.id) == "leased"
    assert finish(db, held)


def test_a_finish_whose_answer_was_lost_can_be_sent_again(db):
    set_policy(db, "a.%", succeeded=False)
    held = a_held_run(db, type="a.b", idempotency_key="key")
    finish(db, held)
    again = submit(db, "a.b", idempotency_key="key")

    assert not finish(db, held)
    assert heartbeat(db, held) == "lost"
    assert (status_of(db, again), violations(db)) == ("pending", [])


def test_an_exchange_deletes_and_claims_in_one_go(db):
    set_policy(db, "a.%", events=False, succeeded=False)
    held = a_held_run(db, type="a.b")
    waiting = submit(db, "a.b")

    got = ask(
        db,
        statements.exchange(
            "worker", [statements.Finished(held.id, 1, "succeeded")], ["a.%"], limit=10, lease_seconds=30
        ),
    )

    assert ([one.id for one in got.claimed], exists(db, held)) == ([waiting], False)


def test_batches_in_opposite_orders_wait_for_each_other_also_when_some_are_deleted(db, connection):
    set_policy(db, "gone.%", succeeded=False)
    low, high = sorted([a_held_run(db, type="kept.a"), a_held_run(db, type="gone.a")], key=lambda one: one.id)
    first, second = connection(), connection()

    first.execute("begin")
    heartbeat(first, low)
    both = [statements.Finished(held.id, 1, "succeeded") for held in (high, low)]
    waiting = in_thread(lambda: ask(second, statements.finish_runs("worker", both)))
    blocked(db, second)
    said = heartbeat(first, high)
    first.execute("commit")

    assert said == "leased"
    assert waiting.result() == {low.id, high.id}


# Against a success that deletes, in every order; and what each answers where it comes first.
@pytest.mark.fault(
    "Concurrency", "a success that deletes against another operation, in every order", "P3, P5, P8"
)
@pytest.mark.parametrize(
    "other",
    ["cancel", "plain cancel", "succeed", "fail", "release", "heartbeat", "progress", "expire", "prune"],
)
@pytest.mark.parametrize("endings", [("commit", "commit"), ("rollback", "commit"), ("commit", "rollback")])
def test_a_success_that_deletes_and_another_operation_agree_in_every_order(
    module_db, sessions, other, endings
):
    db = module_db
    set_policy(db, "test.%", succeeded=False)
    for order in orders(2, 2):
        held = a_held_run(db)
        lapse(db, held)
        transactions = [
            Transaction([lambda db, held=held: finish(db, held)], endings[0]),
            Transaction([lambda db, held=held: OPERATIONS[other](db, held)], endings[1]),
        ]

        play(db, sessions, transactions, order)

        is_deleted = transactions[0].is_committed and transactions[0].answers == [True]
        if other == "succeed" and transactions[1].is_committed:
            is_deleted = is_deleted or transactions[1].answers == [True]
        assert exists(db, held) is not is_deleted, order
        if is_deleted:
            assert count(db, "workflow_event", "workflow_id = %s", held.id) == 0, order
        elif transactions[0].is_committed:
            # The other was first and has ended the lease.
            assert (transactions[0].answers, transactions[1].answers) == ([False], [True]), order
        assert [one for one in violations(db) if one[1] == held.id] == [], order


@pytest.fixture(scope="module")
def sessions(module_url: str) -> Iterator[list[Session]]:
    both = [Session(module_url), Session(module_url)]
    yield both
    for session in both:
        session.close()
