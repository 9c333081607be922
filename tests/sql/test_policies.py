"""Policies: what a type keeps is what its user chose, for every run from beginning to end, and nothing more is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

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
    claim,
    claim_many,
    column_of,
    count,
    events_of,
    expire,
    finish,
    heartbeat,
    lapse,
    progress,
    release,
    reopen,
    retry,
    status_of,
    submit,
    submit_many,
)
from simpleworkflow import statements
from simpleworkflow.model import NewRun
from simpleworkflow.statements import verify
from sql.interleaving import Session, Transaction, orders, play
from sql.racing import OPERATIONS
from waits import blocked, in_thread


def set_policy(db: Database, pattern: str, *, events: bool = True, succeeded: bool = True) -> bool:
    return bool(ask(db, statements.set_policy(pattern, keeps_events=events, keeps_succeeded=succeeded)))


def drop_policy(db: Database, pattern: str) -> bool:
    return bool(ask(db, statements.drop_policy(pattern)))


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
    "expired": (lambda db, held: (lapse(db, held), expire(db)), "pending"),
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


# ── deleted when it succeeds ───────────────────────────────────────────────────────────────────────


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


# ── verify ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        ("delete from workflow_event where workflow_id = {loud}", "the last event tells the present status"),
        ("update workflow_run set keeps_events = false where id = {loud}", "only a policy lets a run keep no events"),
        ("update workflow_run set keeps_events = false where id = {loud}", "a run that keeps no events has none"),
        ("update workflow_run set leased_by = 'ghost' where id = {quiet}", "leased if and only if it has a holder and an end"),
        ("insert into workflow_event (workflow_id, event_type) values ({quiet}, 'created')", "a run that keeps no events has none"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_still_named_where_policies_are(db, superuser, planted, law):
    set_policy(db, "quiet.%", events=False)
    loud, quiet = a_run(db, type=a_type("loud")), a_run(db, type=a_type("quiet"))
    guilty = loud if "{loud}" in planted else quiet

    superuser.execute("alter table workflow_run drop constraint workflow_run_lease")
    superuser.execute("set session_replication_role = replica")
    superuser.execute(planted.format(loud=f"'{loud}'", quiet=f"'{quiet}'").encode())

    assert (law, guilty) in violations(db)
    assert {run_id for _, run_id in violations(db)} == {guilty}


def test_a_policy_that_has_ended_still_explains_the_runs_of_its_time(db):
    set_policy(db, "a.%", events=False)
    submit(db, "a.b")
    drop_policy(db, "a.%")

    assert violations(db) == []
