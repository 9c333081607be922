"""Two sessions on one run: whatever the order, the status agrees with the events, and no cancel is lost.

Every operation against every other, in every order that the steps of their transactions can have, each also rolled
back; below them the orders that the design names, one by one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from builders import (
    Database,
    Held,
    a_held_run,
    a_run,
    ask,
    attempt,
    claim,
    events_of,
    expire,
    finish,
    heartbeat,
    lapse,
    row_of,
    status_of,
    submit,
)
from simpleworkflow import statements
from simpleworkflow.statements import verify
from sql.interleaving import Session, Step, Transaction, orders, play
from sql.racing import BEGINNINGS, OPERATIONS, a_failed_run, a_lapsed_run, a_pending_run, empty, race
from waits import blocked, in_thread

# What a producer or an operator may do in a transaction of any isolation.
BY_PEOPLE = ("cancel", "plain cancel", "reopen", "prune")
ENDS = ("succeed", "fail", "retry", "release")
ENDINGS = (("commit", "commit"), ("rollback", "commit"), ("commit", "rollback"))

# Transactions of several statements, against every operation, and what they begin with.
SEQUENCES = (
    (a_lapsed_run, "cancel", "reopen"),
    (a_failed_run, "reopen", "cancel"),
    (a_lapsed_run, "fail", "reopen", "claim"),
    (a_lapsed_run, "expire", "claim"),
    (a_lapsed_run, "release", "claim", "cancel"),
    (a_lapsed_run, "succeed", "prune"),
)

# ── every order ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Concurrency", "two operations on one run in every order, also rolled back", "P5, P6, P8")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(one, other, id=f"{one}, {other}")
        for one, other in itertools.combinations_with_replacement(OPERATIONS, 2)
    ],
)
def test_two_operations_agree_with_their_events_in_every_order(module_db, sessions, first, second):
    for begin, endings in itertools.product(BEGINNINGS, ENDINGS):
        race(module_db, sessions, begin, ([first], [second]), endings=endings)


@pytest.mark.fault(
    "Concurrency", "a transaction of several statements against one operation, in every order", "P5, P6, P8"
)
@pytest.mark.parametrize("second", OPERATIONS)
@pytest.mark.parametrize("first", SEQUENCES, ids=lambda sequence: ", ".join(sequence[1:]))
def test_a_transaction_of_several_statements_is_one_change_to_others(module_db, sessions, first, second):
    begin, *names = first
    race(module_db, sessions, begin, (names, [second]))


@pytest.mark.fault(
    "Concurrency", "an operator under serializable against one operation, in every order", "P5, P6, P8"
)
@pytest.mark.parametrize("second", OPERATIONS)
@pytest.mark.parametrize("first", BY_PEOPLE)
def test_an_operator_under_serializable_is_refused_or_right(module_db, sessions, first, second):
    for begin in BEGINNINGS:
        race(module_db, sessions, begin, ([first], [second]), isolation="serializable")


@pytest.fixture(scope="module")
def sessions(module_url):
    both = [Session(module_url), Session(module_url)]
    yield both
    for session in both:
        session.close()


@pytest.mark.fault("Concurrency", "two workers exchange each other's runs in every order", "P2, P3")
@pytest.mark.parametrize("endings", ENDINGS, ids=", ".join)
def test_two_exchanges_that_give_back_and_claim_again_never_share_a_run(module_db, sessions, endings):
    for order in orders(3, 3):
        held = {worker: a_held_run(module_db, worker=worker, type="ex.change") for worker in ("one", "two")}
        got: dict[str, list[tuple[str, int]]] = {"one": [], "two": []}
        transactions = [
            Transaction([exchanging(worker, held[worker], got), exchanging(worker, None, got)], ending)
            for worker, ending in zip(held, endings, strict=True)
        ]

        play(module_db, sessions, transactions, order)

        claimed = [
            one
            for worker, transaction in zip(held, transactions, strict=True)
            if transaction.is_committed
            for one in got[worker]
        ]
        assert len(set(claimed)) == len(claimed), order
        for run_id, token in claimed:
            said = module_db.execute(
                "select count(*) from workflow_event where workflow_id = %s and event_type = 'leased'"
                " and (data ->> 'token')::int = %s",
                [run_id, token],
            ).fetchone()
            assert said == (1,), order
        empty(module_db)


def exchanging(worker: str, held: Held | None, got: dict[str, list[tuple[str, int]]]) -> Step:
    """Return a step that gives ``held`` back for a retry and claims what there is, in one exchange."""
    done = (
        [] if held is None else [statements.Finished(held.id, held.fencing_token, "pending", delay_seconds=0)]
    )

    def exchange(db: Database) -> bool:
        said = ask(db, statements.exchange(worker, done, ["ex.%"], limit=5, lease_seconds=30))
        got[worker] += [(one.id, one.fencing_token) for one in said.claimed]
        assert said.refused == frozenset()
        return True

    return exchange


# ── the named ones, word for word ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("write", [*ENDS, "progress"])
@pytest.mark.parametrize("way", ["cancel", "plain cancel"])
def test_a_worker_that_waited_for_a_cancel_is_refused(db, connection, way, write):
    held = a_held_run(db)
    canceller, worker = connection(), connection()

    canceller.execute("begin")
    OPERATIONS[way](canceller, held)
    waiting = in_thread(lambda: OPERATIONS[write](worker, held))
    blocked(db, worker)
    canceller.execute("commit")

    assert waiting.result() is False
    assert status_of(db, held.id) == "cancelled"


@pytest.mark.parametrize("is_explicit", [False, True])
@pytest.mark.parametrize(
    ("way", "ended"), [("cancel", "cancelled"), ("plain cancel", "cancelled"), ("expire", "lost")]
)
def test_a_heartbeat_waits_for_nobody(db, connection, way, ended, is_explicit):
    held, beside = a_lapsed_run(db), a_held_run(db)
    other = connection()

    def beat() -> dict[str, str]:
        return ask(
            db,
            statements.heartbeat_runs(
                "worker", [(held.id, 1), (beside.id, 1)], seconds=30, is_explicit=is_explicit
            ),
        )

    other.execute("begin")
    OPERATIONS[way](other, held)
    during = beat()
    other.execute("rollback")
    after = beat()
    lapse(db, held)
    OPERATIONS[way](other, held)

    assert during == {held.id: "locked", beside.id: "leased"}
    assert after == {held.id: "leased", beside.id: "leased"}
    assert beat() == {held.id: ended, beside.id: "leased"}


@pytest.mark.parametrize("way", ["cancel", "plain cancel"])
def test_a_cancel_that_waited_for_a_finish_changes_nothing(db, connection, way):
    held = a_held_run(db)
    worker, canceller = connection(), connection()

    worker.execute("begin")
    finish(worker, held, result=1)
    after = row_of(worker, held.id)
    waiting = in_thread(lambda: OPERATIONS[way](canceller, held))
    blocked(db, canceller)
    worker.execute("commit")

    assert waiting.result() is False
    assert row_of(db, held.id) == after


def test_an_unguarded_cancel_that_waited_for_a_finish_is_refused(db, connection):
    held = a_held_run(db)
    worker, canceller = connection(), connection()

    worker.execute("begin")
    finish(worker, held)
    waiting = in_thread(lambda: refused(canceller, held))
    blocked(db, canceller)
    worker.execute("commit")

    assert waiting.result() == "WF001"
    assert status_of(db, held.id) == "succeeded"


def refused(db: Database, held: Held) -> str | None:
    return attempt(db, f"update workflow_run set status = 'cancelled' where id = '{held.id}'")


@pytest.mark.parametrize("way", ["cancel", "plain cancel"])
def test_a_cancel_is_not_lost_to_a_claim_that_commits_first(db, connection, way):
    held = a_pending_run(db)
    claimer, canceller = connection(), connection()

    claimer.execute("begin")
    claim(claimer, pattern=held.type)
    waiting = in_thread(lambda: OPERATIONS[way](canceller, held))
    blocked(db, canceller)
    claimer.execute("commit")

    assert waiting.result() is True
    assert events_of(db, held) == ["created", "leased", "cancelled"]


def test_expiry_leaves_alone_what_a_finish_or_a_heartbeat_holds(db, connection):
    finishing, beating, lapsed = a_lapsed_run(db), a_lapsed_run(db), a_lapsed_run(db)
    worker = connection()

    worker.execute("begin")
    finish(worker, finishing)
    heartbeat(worker, beating)
    became = expire(db)
    worker.execute("commit")

    assert became == {lapsed.id: "pending"}
    assert expire(db) == {}
    assert (status_of(db, finishing.id), status_of(db, beating.id)) == ("succeeded", "leased")


@pytest.mark.parametrize("write", [*ENDS, "progress"])
def test_a_worker_that_waited_for_an_expiry_is_refused(db, connection, write):
    held = a_lapsed_run(db)
    expirer, worker = connection(), connection()

    expirer.execute("begin")
    expire(expirer)
    waiting = in_thread(lambda: OPERATIONS[write](worker, held))
    blocked(db, worker)
    expirer.execute("commit")

    assert waiting.result() is False
    assert events_of(db, held) == ["created", "leased", "expired"]


@pytest.mark.fault("Concurrency", "batches in opposite orders by four sessions", "P2, P3")
def test_the_same_runs_finished_and_extended_in_opposite_orders_do_not_deadlock(db, connection):
    db.execute("insert into workflow_run (type) select 'a.b' from generate_series(1, 400)")
    rows = db.execute("select id::text, fencing_token from claim('worker', '{a.b}', 400)").fetchall()
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work(conn: Database, call: Callable[[Database], object]) -> None:
        start.wait()
        try:
            for _ in range(10):
                call(conn)
        except BaseException as error:
            failures.append(error)

    backwards = rows[::-1]
    done = [statements.Finished(*row, "succeeded") for row in backwards]
    calls = [
        lambda conn: ask(conn, statements.heartbeat_runs("worker", rows, seconds=30)),
        lambda conn: ask(conn, statements.heartbeat_runs("worker", backwards, seconds=30)),
        lambda conn: ask(conn, statements.finish_runs("worker", done)),
        lambda conn: expire(conn, "worker"),
    ]
    threads = [threading.Thread(target=work, args=(connection(), call)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert ask(db, verify(60)) == []


def test_two_runs_locked_one_after_the_other_by_batches_in_opposite_order_do_not_deadlock(db, connection):
    """The batches name the runs in opposite orders; both take them by id, so one waits for the other."""
    low, high = sorted([a_held_run(db), a_held_run(db)], key=lambda held: held.id)
    first, second = connection(), connection()

    first.execute("begin")
    heartbeat(first, low)
    both = [statements.Finished(held.id, 1, "succeeded") for held in (high, low)]
    waiting = in_thread(lambda: ask(second, statements.finish_runs("worker", both)))
    blocked(db, second)
    # The second waits for the low one and so must not hold the high one yet.
    said = heartbeat(first, high)
    first.execute("commit")

    assert said == "leased"
    assert waiting.result() == {low.id, high.id}


@pytest.mark.parametrize("call", ["cancel", "reopen"])
def test_batches_of_operators_take_their_locks_in_one_order_too(db, connection, call):
    status = "failed" if call == "reopen" else "pending"
    low, high = sorted([a_run(db, status=status), a_run(db, status=status)])
    first, second = connection(), connection()

    first.execute("begin")
    first.execute("select from workflow_run where id = %s for update", [low])
    waiting = in_thread(
        lambda: second.execute(f"select * from {call}(%s::uuid[])".encode(), [[high, low]]).fetchall()
    )
    blocked(db, second)
    first.execute("set lock_timeout = '5s'")
    first.execute("select from workflow_run where id = %s for update", [high])
    first.execute("commit")

    assert [changed for _, changed in waiting.result()] == [True, True]


def test_a_worker_under_read_committed_is_not_disturbed_by_a_claim_of_its_neighbours(db, connection):
    for _ in range(20):
        submit(db, "a.b")
    other = connection()

    with other.transaction():
        theirs = claim(other)
        mine = claim(db)

    assert theirs.id != mine.id
