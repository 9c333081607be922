"""``verify`` names every planted fault, and nothing in a database where only our functions wrote."""

from __future__ import annotations

import pytest

from builders import (
    a_held_run,
    a_run,
    a_type,
    ask,
    cancel,
    claim,
    expire,
    finish,
    heartbeat,
    lapse,
    progress,
    release,
    reopen,
    retry,
    submit,
)
from simpleworkflow.statements import verify

PATH = "events form one unbroken path"
LAST = "the last event tells the present status"
ORPHANS = "every event belongs to a run"
TOKEN = "the fencing token is the number of claims"
HELD = "who acted on a lease held its token"
NOTES = "only a leased run has heartbeats and progress"
LEASED = "leased if and only if it has a holder and an end"
ENDED = "ended if and only if it has finished_at"
LAPSED = "a lapsed lease is expired in time"
KEYS = "one run for each idempotency key"
COUNTED = "what is counted is what is there"
ATTEMPTS = "attempts stay within their budget and their claims"

# status of the run, what is done to it behind the guards' back, the laws that are named.
FAULTS = {
    "the status is changed without an event": (
        "pending",
        "update workflow_run set status = 'succeeded', finished_at = now() where id = {id}",
        {LAST, COUNTED},
    ),
    "all events are gone": (
        "pending",
        "delete from workflow_event where workflow_id = {id}",
        {LAST},
    ),
    "the created event is gone": (
        "succeeded",
        "delete from workflow_event where workflow_id = {id} and event_type = 'created'",
        {PATH},
    ),
    "the leased event is gone": (
        "succeeded",
        "delete from workflow_event where workflow_id = {id} and event_type = 'leased'",
        {PATH, TOKEN, HELD},
    ),
    "the run is gone": (
        "pending",
        "delete from workflow_run where id = {id}",
        {ORPHANS, COUNTED},
    ),
    "a second success": (
        "succeeded",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'succeeded', '{{\"token\": 1}}')",
        {PATH},
    ),
    "a success is reopened": (
        "succeeded",
        "insert into workflow_event (workflow_id, event_type) values ({id}, 'reopened')",
        {PATH, LAST},
    ),
    "a failure is retried by nobody": (
        "failed",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'retried', '{{\"token\": 1}}')",
        {PATH, LAST},
    ),
    "created twice": (
        "pending",
        "insert into workflow_event (workflow_id, event_type) values ({id}, 'created')",
        {PATH},
    ),
    "claimed twice at once": (
        "leased",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'leased', '{{\"token\": 2}}')",
        {PATH, TOKEN},
    ),
    "expired to nowhere": (
        "leased",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'expired', '{{\"token\": 1}}')",
        {PATH, LAST},
    ),
    "the token went down": (
        "leased",
        "update workflow_run set fencing_token = 0, attempt = 0 where id = {id}",
        {TOKEN, ATTEMPTS},
    ),
    "a zombie's result was taken": (
        "succeeded",
        "update workflow_event set data = '{{\"token\": 0}}' where workflow_id = {id} and event_type = 'succeeded'",
        {HELD},
    ),
    "a result names no token": (
        "succeeded",
        "update workflow_event set data = '{{}}' where workflow_id = {id} and event_type = 'succeeded'",
        {HELD},
    ),
    "a token is no number": (
        "failed",
        "update workflow_event set data = '{{\"token\": [\"x\"]}}' where workflow_id = {id} and event_type = 'failed'",
        {HELD},
    ),
    "a heartbeat after the end": (
        "succeeded",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'heartbeat', '{{\"token\": 1}}')",
        {NOTES},
    ),
    "progress before the claim": (
        "pending",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'progress', '{{\"token\": 0}}')",
        {NOTES},
    ),
    "a zombie's heartbeat": (
        "leased",
        "insert into workflow_event (workflow_id, event_type, data) values ({id}, 'heartbeat', '{{\"token\": 0}}')",
        {HELD},
    ),
    "a lease without an end": (
        "leased",
        "update workflow_run set lease_until = null where id = {id}",
        {LEASED},
    ),
    "a holder without a lease": (
        "pending",
        "update workflow_run set leased_by = 'ghost' where id = {id}",
        {LEASED},
    ),
    "an end that was not reached": (
        "pending",
        "update workflow_run set finished_at = now() where id = {id}",
        {ENDED},
    ),
    "a lease nobody expires": (
        "leased",
        "update workflow_run set lease_until = now() - interval '61 seconds' where id = {id}",
        {LAPSED},
    ),
    "more attempts than allowed": (
        "leased",
        "update workflow_run set attempt = 4, fencing_token = 4 where id = {id}",
        {ATTEMPTS, TOKEN},
    ),
    "a pending run without an attempt left": (
        "pending",
        "update workflow_run set max_attempts = 0 where id = {id}",
        {ATTEMPTS},
    ),
}


def violations(db) -> list[tuple[str, str | None]]:
    return [(one.law, one.run_id) for one in ask(db, verify(60))]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_with_its_run(db, superuser, fault):
    status, planted, laws = FAULTS[fault]
    a_run(db, status=status)
    guilty = a_run(db, status=status)

    plant(superuser, planted.format(id=f"'{guilty}'"))

    assert set(violations(db)) == {(law, None if law == COUNTED else guilty) for law in laws}


def test_two_runs_with_one_key_are_both_named(db, superuser):
    first = submit(db, idempotency_key="twice")
    second = submit(db, idempotency_key="once")
    db.execute("alter table workflow_run drop constraint workflow_run_idempotency_key")

    plant(superuser, f"update workflow_run set idempotency_key = 'twice' where id = '{second}'")

    assert set(violations(db)) == {(KEYS, first), (KEYS, second)}


def test_a_database_where_only_functions_wrote_breaks_no_law(db):
    for status in ("pending", "leased", "succeeded", "failed", "cancelled"):
        a_run(db, status=status)
    held = a_held_run(db, max_attempts=4)
    heartbeat(db, held, is_explicit=True)
    progress(db, held)
    retry(db, held)
    again = claim(db, pattern=held.type)
    release(db, again)
    third = claim(db, pattern=held.type)
    lapse(db, third)
    expire(db)
    fourth = claim(db, pattern=held.type)
    finish(db, fourth, status="failed", error="no")
    reopen(db, held.id)
    fifth = claim(db, pattern=held.type)
    cancel(db, held.id)
    finish(db, fifth)
    reopen(db, held.id)
    last = a_held_run(db, max_attempts=1)
    lapse(db, last)
    expire(db)
    db.execute("update workflow_run set status = 'cancelled' where type = %s", [held.type])

    found = violations(db)

    assert found == []


def test_a_lapsed_lease_is_no_violation_within_the_slack(db):
    held = a_held_run(db)

    lapse(db, held)

    assert violations(db) == []
    assert [one.law for one in ask(db, verify(0))] == [LAPSED]


def test_an_event_of_a_kind_that_is_not_known_is_a_note(db, superuser):
    run_id = a_run(db, status="leased")

    plant(superuser, f"insert into workflow_event (workflow_id, event_type) values ('{run_id}', 'stepped')")

    assert violations(db) == []


def test_a_violation_says_what_was_found(db, superuser):
    guilty = submit(db, a_type())

    plant(superuser, f"delete from workflow_event where workflow_id = '{guilty}'")

    assert [one.found for one in ask(db, verify(60))] == ["the run is pending, its last event is missing"]


def plant(superuser, statement: str) -> None:
    """Do what guards and checks refuse."""
    for name in ("status", "lease", "attempts", "finished"):
        superuser.execute(f"alter table workflow_run drop constraint workflow_run_{name}")
    superuser.execute("set session_replication_role = replica")
    assert superuser.execute(statement).rowcount > 0
    superuser.execute("reset session_replication_role")
