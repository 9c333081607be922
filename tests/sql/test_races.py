"""Two sessions, one with its transaction open: whatever the order, the status agrees with the events."""

from __future__ import annotations

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
    cancel,
    claim,
    connect,
    events_of,
    expire,
    finish,
    heartbeat,
    lapse,
    progress,
    release,
    reopen,
    retry,
    row_of,
    status_of,
    submit,
)
from simpleworkflow import statements
from simpleworkflow.statements import verify
from waits import blocked, in_thread, until

Operation = Callable[[Database, Held], object]


def plain_cancel(db: Database, held: Held) -> bool:
    found = db.execute(
        "update workflow_run set status = 'cancelled' where id = %s and status in ('pending', 'leased')",
        [held.id],
    )
    return found.rowcount == 1


OPERATIONS: dict[str, Operation] = {
    "cancel": lambda db, held: cancel(db, held.id),
    "plain cancel": plain_cancel,
    "succeed": finish,
    "fail": lambda db, held: finish(db, held, status="failed", error="no"),
    "retry": retry,
    "release": release,
    "heartbeat": lambda db, held: heartbeat(db, held, is_explicit=True) == "leased",
    "progress": progress,
    "expire": lambda db, _: expire(db) != {},
    "expire the dead": lambda db, held: expire(db, held.worker) != {},
    "claim": lambda db, held: claim(db, worker="another", pattern=held.type) is not None,
    "reopen": lambda db, held: reopen(db, held.id),
}
# These skip what somebody has locked instead of waiting for it.
NEVER_WAITS = {"expire", "expire the dead", "claim"}
ENDS = ("succeed", "fail", "retry", "release")


def a_lapsed_run(db: Database) -> Held:
    held = a_held_run(db)
    lapse(db, held)
    return held


def a_pending_run(db: Database) -> Held:
    run_id = a_run(db)
    return Held(run_id, db.execute("select type from workflow_run").fetchone()[0], 0, 0, "worker")


def a_failed_run(db: Database) -> Held:
    held = a_held_run(db)
    finish(db, held, status="failed", error="no")
    return held


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize("second", OPERATIONS)
@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("begin", [a_lapsed_run, a_pending_run, a_failed_run])
def test_of_two_operations_on_one_run_the_second_sees_what_the_first_made(
    module_db, module_connections, begin, first, second, ending
):
    one, two = module_connections
    module_db.execute("select set_config('workflow.transition', 'prune', false)")
    module_db.execute("delete from workflow_event; delete from workflow_run; reset workflow.transition")
    held = begin(module_db)

    # Given the first, done but not committed,
    one.execute("begin")
    did_first = OPERATIONS[first](one, held)
    # when the second begins meanwhile and the first then ends,
    waiting = in_thread(lambda: OPERATIONS[second](two, held))
    if did_first and second not in NEVER_WAITS:
        wait_for(module_db, two, waiting)
    one.execute(ending)
    did_second = waiting.result(timeout=20)

    # then the events tell one story, and the story is the row's.
    kinds = events_of(module_db, held)
    assert ask(module_db, verify(60)) == []
    assert ("cancelled" in kinds) == cancelled(first, second, did_first and ending == "commit", did_second)
    assert kinds.count("succeeded") + kinds.count("failed") <= 1 + (begin is a_failed_run)
    if did_second and "cancel" in second:
        assert status_of(module_db, held.id) == "cancelled"


def wait_for(observer: Database, two: Database, waiting) -> None:
    """Return when the second is blocked, or has come to its end without waiting."""
    until(
        lambda: (
            waiting.done()
            or observer.execute(
                "select cardinality(pg_blocking_pids(%s)) > 0", [two.info.backend_pid]
            ).fetchone()[0]
        ),
        "the second waits or ends",
    )


def cancelled(first: str, second: str, did_first: object, did_second: object) -> bool:
    return bool(("cancel" in first and did_first) or ("cancel" in second and did_second))


@pytest.fixture(scope="module")
def module_connections(module_url):
    with connect(module_url) as one, connect(module_url) as two:
        yield one, two


# ── the named ones, word for word ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("write", ["succeed", "fail", "retry", "release", "heartbeat", "progress"])
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


def test_a_heartbeat_that_waited_for_a_cancel_says_cancelled(db, connection):
    held = a_held_run(db)
    canceller, worker = connection(), connection()

    canceller.execute("begin")
    cancel(canceller, held.id)
    waiting = in_thread(lambda: heartbeat(worker, held))
    blocked(db, worker)
    canceller.execute("commit")

    assert waiting.result() == "cancelled"


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


@pytest.mark.parametrize("write", [*ENDS, "heartbeat", "progress"])
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
