"""Policies: what a type keeps is what its user chose, for every run from beginning to end, and nothing more is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import psycopg
import pytest

from builders import (
    Database,
    Held,
    a_held_run,
    a_run,
    a_type,
    ask,
    attempt,
    cancel,
    claim_many,
    column_of,
    count,
    drop_policy,
    events_of,
    finish,
    heartbeat,
    lose,
    progress,
    release,
    reopen,
    retry,
    set_policy,
    status_of,
    submit,
    submit_many,
)
from simpleworkflow import statements
from simpleworkflow.model import NewRun
from simpleworkflow.statements import verify
from waits import blocked, in_thread


def exists(db: Database, run_id: str | Held) -> bool:
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    return count(db, "workflow_run", "id = %s", run_id) == 1


def violations(db: Database) -> list[tuple[str, str | None]]:
    return [(one.law, one.run_id) for one in ask(db, verify(60))]


# ── no policy ──────────────────────────────────────────────────────────────────────────────────────


def test_without_a_policy_every_run_keeps_its_events_and_stays_when_it_succeeds(db):
    held = a_held_run(db)

    finish(db, held)

    assert (status_of(db, held.id), events_of(db, held)) == ("succeeded", ["created", "leased", "succeeded"])
    assert column_of(db, held, "keeps_events") is True


def test_a_policy_of_another_type_changes_nothing(db):
    set_policy(db, "other.%", events=False, succeeded=False)
    set_policy(db, "test.exact", events=False, succeeded=False)
    held = a_held_run(db, type="test.exact.v1")

    finish(db, held)

    assert events_of(db, held) == ["created", "leased", "succeeded"]


# ── no events ──────────────────────────────────────────────────────────────────────────────────────


def fail(db: Database, held: Held) -> bool:
    return finish(db, held, status="failed", error="no")


# What is done to a run that is held, and the status it then has.
ENDINGS: dict[str, tuple[Callable[[Database, Held], object], str]] = {
    "succeeded": (finish, "succeeded"),
    "failed": (fail, "failed"),
    "retried": (retry, "pending"),
    "released": (release, "pending"),
    "cancelled": (lambda db, held: cancel(db, held.id), "cancelled"),
    "cancelled by update": (
        lambda db, held: db.execute("update workflow_run set status = 'cancelled' where id = %s", [held.id]),
        "cancelled",
    ),
    "expired": (lose, "pending"),
    "heartbeat": (lambda db, held: heartbeat(db, held, is_explicit=True), "leased"),
    "progress": (progress, "leased"),
    "reopened": (lambda db, held: (fail(db, held), reopen(db, held.id)), "pending"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_happens_to_a_run_that_keeps_no_events_leaves_none(db, ending):
    set_policy(db, "quiet.%", events=False)
    change, status = ENDINGS[ending]
    held = a_held_run(db, type="quiet.run.v1")

    assert change(db, held)

    assert (status_of(db, held.id), count(db, "workflow_event")) == (status, 0)
    assert violations(db) == []


def test_a_run_keeps_no_events_however_it_is_recorded(db):
    set_policy(db, "quiet.%", events=False)

    submit(db, "quiet.a")
    submit_many(db, [NewRun(type="quiet.b"), NewRun(type="loud.c"), NewRun(type="quiet.d")])
    db.execute("insert into workflow_run (type) values ('quiet.e'), ('loud.f')")
    with db.cursor().copy("copy workflow_run (type) from stdin") as copy:
        copy.write("quiet.g\nloud.h\n")

    rows = db.execute(
        "select type from workflow_event join workflow_run as run on run.id = workflow_id order by type"
    ).fetchall()
    assert [row[0] for row in rows] == ["loud.c", "loud.f", "loud.h"]
    assert violations(db) == []


def test_one_batch_of_both_kinds_leaves_the_events_of_those_that_keep_them(db):
    set_policy(db, "quiet.%", events=False)
    submit_many(db, [NewRun(type=type_) for type_ in ("quiet.a", "loud.b", "quiet.c", "loud.d")])

    for held in claim_many(db):
        finish(db, held)

    assert [
        events_of(db, str(row[0])) for row in db.execute("select id from workflow_run order by type")
    ] == [
        ["created", "leased", "succeeded"],
        ["created", "leased", "succeeded"],
        [],
        [],
    ]
    assert violations(db) == []


def test_an_idle_worker_is_woken_by_a_run_that_keeps_no_events(db, connection):
    set_policy(db, "quiet.%", events=False)
    idle, listener = connection(), connection()
    idle.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [f"{db.schema}.hungry"])
    listener.execute(f"listen {db.schema}".encode())

    submit(db, "quiet.a")

    assert [note.payload for note in listener.notifies(timeout=5, stop_after=1)] == ["wake quiet.a"]


def test_the_handler_of_a_cancelled_run_is_told_though_no_event_is_written(db, connection):
    set_policy(db, "quiet.%", events=False)
    held = a_held_run(db, type="quiet.a")
    listener = connection()
    listener.execute(f"listen {db.schema}".encode())

    cancel(db, held.id)

    assert [note.payload for note in listener.notifies(timeout=5, stop_after=1)] == [f"cancelled {held.id} 1"]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into workflow_run (type, keeps_events) values ('a.b', false)",
        "insert into workflow_run (type, keeps_events) values ('a.b', null)",
        "update workflow_run set keeps_events = false",
    ],
)
def test_no_producer_decides_whether_its_run_keeps_events(db, statement):
    submit(db, "a.b")

    assert attempt(db, statement) == "WF001"


# ── which policy ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["events", "succeeded"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_the_most_specific_pattern_counts_in_whatever_order_they_were_set(db, order, what):
    patterns = [("%", True), ("a.%", False), ("a.b.%", True), ("a.b.c", False)]
    for position in order:
        pattern, kept = patterns[position]
        set_policy(db, pattern, **{what: kept})

    kept_types = []
    for type_ in ("a.b.c", "a.b.c.d", "a.b", "a.x", "b"):
        held = a_held_run(db, type=type_)
        finish(db, held)
        if (events_of(db, held) != []) if what == "events" else exists(db, held):
            kept_types.append(type_)

    assert kept_types == ["a.b.c.d", "b"]
    assert violations(db) == []


def test_a_prefix_is_literal_but_for_the_percent_at_its_end(db):
    set_policy(db, "a_b.%", events=False, succeeded=False)

    quiet, loud = a_held_run(db, type="a_b.v1"), a_held_run(db, type="axb.v1")
    finish(db, quiet)
    finish(db, loud)

    assert (exists(db, quiet), events_of(db, loud)) == (False, ["created", "leased", "succeeded"])


@pytest.mark.fault(
    "Security", "a worker whose session reads backslashes in its own way deletes what is kept", "P6"
)
def test_a_name_is_no_prefix_however_a_session_reads_literals(db, connection):
    set_policy(db, "a.bc", succeeded=False)
    session = connection()
    session.execute("set standard_conforming_strings = off")

    held = a_held_run(session, type="a.bd")
    finish(session, held)

    assert exists(db, held)


@pytest.mark.parametrize(
    "pattern", ["", "%%", "a%b", "%.v1", "a b", "a\\_b", "a\\%", "a'; drop", "ä.%", "x" * 201, "a\n", None]
)
def test_a_pattern_that_covers_no_type_is_refused(db, pattern):
    for call in ("set_policy(%s, false)", "drop_policy(%s)"):
        assert attempt(db, f"select {call}", pattern) == "WF002"

    assert count(db, "workflow_policy") == 0


@pytest.mark.parametrize("arguments", ["'a.b', null", "'a.b', true, null"])
def test_a_policy_is_yes_or_no(db, arguments):
    assert attempt(db, f"select set_policy({arguments})") == "WF002"


# ── the history of policies ────────────────────────────────────────────────────────────────────────


def test_a_change_ends_one_policy_and_begins_another_and_says_who(db):
    assert set_policy(db, "a.%", events=False)
    assert set_policy(db, "a.%", succeeded=False)
    assert drop_policy(db, "a.%")

    rows = db.execute(
        "select keeps_events, keeps_succeeded, applies_from <= applies_until, set_by, ended_by"
        " from workflow_policy order by id"
    ).fetchall()
    user = db.info.user
    assert rows == [(False, True, True, user, user), (True, False, True, user, user)]
    assert ask(db, statements.list_policies()) == []


def test_to_set_what_is_set_changes_nothing(db):
    set_policy(db, "a.%", events=False)

    assert not set_policy(db, "a.%", events=False)
    assert not drop_policy(db, "b.%")
    assert count(db, "workflow_policy") == 1


def test_the_policies_that_apply_are_listed_least_specific_first(db):
    for pattern in ("a.b", "a.%", "%", "a.b.%"):
        set_policy(db, pattern, events=False)
    drop_policy(db, "a.b.%")

    assert [one.pattern for one in ask(db, statements.list_policies())] == ["%", "a.%", "a.b"]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into workflow_policy (pattern, keeps_events, keeps_succeeded) values ('b.%', false, false)",
        "update workflow_policy set applies_until = now(), ended_by = 'me'",
        "delete from workflow_policy",
        "truncate workflow_policy",
    ],
)
def test_plain_sql_cannot_write_policies_not_even_the_owner_s(db, statement):
    set_policy(db, "a.%", events=False)

    assert attempt(db, statement) == "WF001"


def test_a_policy_that_is_rolled_back_never_was(db):
    with db.transaction(force_rollback=True):
        set_policy(db, "a.%", events=False, succeeded=False)

    held = a_held_run(db, type="a.b")
    finish(db, held)
    assert events_of(db, held) == ["created", "leased", "succeeded"]


def test_two_policies_of_one_pattern_set_at_once_come_one_after_the_other(db, connection):
    first, second = connection(), connection()

    first.execute("begin")
    set_policy(first, "a.%", succeeded=False)
    waiting = in_thread(lambda: set_policy(second, "a.%", succeeded=False))
    blocked(db, second)
    first.execute("commit")

    assert waiting.result() is False
    assert count(db, "workflow_policy") == 1


# ── switched on and off with runs in flight ────────────────────────────────────────────────────────


def test_runs_go_on_as_they_began_when_the_policy_changes_and_verify_stays_silent(db):
    loud, loud_failed = a_held_run(db, type="a.one"), a_held_run(db, type="a.two")
    fail(db, loud_failed)
    set_policy(db, "a.%", events=False)
    quiet, quiet_failed = a_held_run(db, type="a.three"), a_held_run(db, type="a.four")
    fail(db, quiet_failed)
    finish(db, loud)
    assert violations(db) == []

    drop_policy(db, "a.%")
    finish(db, quiet)
    for failed in (loud_failed, quiet_failed):
        reopen(db, failed.id)
        cancel(db, failed.id)
    after = a_held_run(db, type="a.five")

    assert events_of(db, loud) == ["created", "leased", "succeeded"]
    assert events_of(db, loud_failed) == ["created", "leased", "failed", "reopened", "cancelled"]
    assert (events_of(db, quiet), events_of(db, quiet_failed)) == ([], [])
    assert events_of(db, after) == ["created", "leased"]
    assert violations(db) == []


def test_created_at_cannot_talk_a_run_out_of_its_events(db):
    """Also one that a producer writes: the rule is that of the insert, whatever time it claims."""
    set_policy(db, "a.%", events=False)
    then = db.execute("select clock_timestamp()").fetchone()
    drop_policy(db, "a.%")

    for time in (*then, "2099-01-01 00:00+00", "1999-01-01 00:00+00"):
        db.execute("insert into workflow_run (type, created_at) values ('a.b', %s)", [time])
    set_policy(db, "a.%", events=False)
    for held in claim_many(db):
        finish(db, held)

    assert count(db, "workflow_event") == 9
    assert violations(db) == []


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("turn", ["on", "off"])
def test_a_producer_whose_transaction_is_older_than_a_change_leaves_what_its_run_says(
    db, connection, isolation, turn
):
    if turn == "off":
        set_policy(db, "a.%", events=False)
    producer = connection()
    producer.execute(f"begin isolation level {isolation}".encode())
    producer.execute("select count(*) from workflow_registry")  # its snapshot, without a lock on runs

    set_policy(db, "a.%", events=turn == "off")
    run_id = submit(producer, "a.b")
    producer.execute("commit")

    assert column_of(db, run_id, "keeps_events") is (events_of(db, run_id) == ["created"])
    assert events_of(db, run_id) == ([] if turn == "on" else ["created"])
    assert violations(db) == []


def test_an_insert_that_comes_during_a_change_waits_for_it(db, connection):
    operator, producer = connection(), connection()

    operator.execute("begin")
    set_policy(operator, "a.%", events=False)
    waiting = in_thread(lambda: submit(producer, "a.b"))
    blocked(db, producer)
    operator.execute("commit")

    assert events_of(db, waiting.result()) == []
    assert violations(db) == []


def test_a_change_waits_for_an_insert_and_gives_way_after_two_seconds(db, connection):
    producer, operator = connection(), connection()

    producer.execute("begin")
    run_id = submit(producer, "a.b")
    with pytest.raises(psycopg.Error) as refused:
        operator.execute("select set_policy('a.%', false)")
    producer.execute("commit")

    assert refused.value.sqlstate == "WF001"
    assert "is still open; try again" in str(refused.value)
    assert (events_of(db, run_id), count(db, "workflow_policy")) == (["created"], 0)
    assert set_policy(operator, "a.%", events=False)


def test_a_change_waits_for_an_insert_that_ends_soon(db, connection):
    producer, operator = connection(), connection()

    producer.execute("begin")
    before = submit(producer, "a.b")
    waiting = in_thread(lambda: set_policy(operator, "a.%", events=False))
    blocked(db, operator)
    producer.execute("commit")

    assert waiting.result() is True
    assert (events_of(db, before), events_of(db, submit(db, "a.b"))) == (["created"], [])


def test_a_policy_about_succeeded_runs_waits_for_no_producer(db, connection):
    producer, operator = connection(), connection()
    producer.execute("begin")
    submit(producer, "a.b")
    operator.execute("set lock_timeout = '1ms'")

    assert set_policy(operator, "a.%", succeeded=False)
    assert set_policy(operator, "a.b")
    assert drop_policy(operator, "a.b")
    producer.execute("rollback")


# ── verify ─────────────────────────────────────────────────────────────────────────────────────────


# What is planted, in a run that keeps events or one that keeps none, and the laws that are named.
FAULTS = {
    "the events are gone": (
        "delete from workflow_event where workflow_id = {loud}",
        {"the last event tells the present status"},
    ),
    "a run says that it keeps none": (
        "update workflow_run set keeps_events = false where id = {loud}",
        {"only a policy lets a run keep no events", "a run that keeps no events has none"},
    ),
    "a holder without a lease": (
        "update workflow_run set leased_by = 'ghost' where id = {quiet}",
        {"leased if and only if it has a holder and an end"},
    ),
    "an event where there should be none": (
        "insert into workflow_event (workflow_id, event_type) values ({quiet}, 'created')",
        {"a run that keeps no events has none"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_still_named_where_policies_are(db, superuser, fault):
    planted, laws = FAULTS[fault]
    set_policy(db, "quiet.%", events=False)
    loud, quiet = a_run(db, type=a_type("loud")), a_run(db, type=a_type("quiet"))
    guilty = loud if "{loud}" in planted else quiet

    superuser.execute("alter table workflow_run drop constraint workflow_run_lease")
    superuser.execute("set session_replication_role = replica")
    superuser.execute(planted.format(loud=f"'{loud}'", quiet=f"'{quiet}'").encode())

    assert set(violations(db)) == {(law, guilty) for law in laws}


def test_a_policy_that_has_ended_still_explains_the_runs_of_its_time(db):
    set_policy(db, "a.%", events=False)
    submit(db, "a.b")
    drop_policy(db, "a.%")

    assert violations(db) == []
