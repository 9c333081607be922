"""An operation changes what its filter matches, once, whoever carries it out and however often that one dies."""

from __future__ import annotations

from uuid import UUID

import pytest

from builders import (
    Database,
    a_held_run,
    a_run,
    a_type,
    age,
    ask,
    attempt,
    cancel,
    claim_many,
    count,
    finish,
    last_event,
    reopen,
    rewrite,
    set_policy,
    status_of,
    submit,
    submit_many,
)
from simpleworkflow import statements
from simpleworkflow.errors import InvalidInput
from simpleworkflow.model import NewRun
from simpleworkflow.operation import Operation
from waits import blocked, in_thread, until


def operate(db: Database, kind: str = "cancel", pattern: str = "%", **options) -> Operation:
    """Ask for an operation; return it."""
    given = {
        "statuses": None,
        "created_from": None,
        "created_before": None,
        "reason": "a test",
        "attempts": 3,
    }
    return ask(db, statements.operate(kind, patterns=[pattern], **(given | options)))


def carry(db: Database, *, carrier: str = "one", limit: int = 500, lease_seconds: float = 5):
    """Carry out one chunk."""
    return ask(db, statements.carry_operation(carrier, limit=limit, lease_seconds=lease_seconds))


def carry_out(db: Database, operation: Operation, **options) -> Operation:
    """Carry out chunks until nothing is left; return how the operation stands."""
    while carry(db, **options) is not None:
        pass
    return how(db, operation)


def how(db: Database, operation: Operation) -> Operation:
    return ask(db, statements.list_operations(operation.id))[0]


def counted(db: Database, kind: str = "cancel", pattern: str = "%", *, looks: int = 10_000) -> list[int]:
    """Return how many runs each part has."""
    parts, walk = [], None
    while True:
        runs, walk = ask(
            db,
            statements.count_operable(
                kind,
                patterns=[pattern],
                statuses=None,
                created_from=None,
                created_before=None,
                walk=walk,
                looks=looks,
            ),
        )
        parts.append(runs)
        if walk is None:
            return parts


def statuses(db: Database, type_: str) -> dict[str, int]:
    return dict(
        db.execute("select status, count(*) from workflow_run where type = %s group by 1", [type_]).fetchall()
    )


# ── what it changes ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_a_cancel_reaches_every_run_that_has_not_ended_and_no_other(db, limit):
    kept = {status: a_run(db, status=status) for status in ("succeeded", "failed", "cancelled")}
    wanted = [a_run(db, status=status) for status in ("pending", "leased", "waiting") for _ in range(3)]
    suspect = a_run(db)
    rewrite(db, suspect, "is_suspect = true")

    ended = carry_out(db, operate(db), limit=limit)

    assert {status_of(db, one) for one in [*wanted, suspect]} == {"cancelled"}
    assert {status: status_of(db, run_id) for status, run_id in kept.items()} == {one: one for one in kept}
    assert (ended.state, ended.matched, ended.done, ended.changed) == ("finished", 10, 10, 10)


def test_a_reopen_reaches_what_failed_or_was_cancelled_and_gives_the_budget_asked_for(db):
    failed, cancelled, succeeded = (a_run(db, status=one) for one in ("failed", "cancelled", "succeeded"))

    ended = carry_out(db, operate(db, "reopen", attempts=7))

    assert (status_of(db, failed), status_of(db, cancelled)) == ("pending", "pending")
    assert status_of(db, succeeded) == "succeeded"
    assert last_event(db, failed)[1]["max_attempts"] == 1 + 7
    assert (ended.matched, ended.changed) == (2, 2)


def test_a_pattern_is_a_type_or_a_prefix_and_underscores_are_themselves(db):
    wanted = [submit(db, type_) for type_ in ("a_b.v1", "a_b.v2", "c.v1")]
    others = [submit(db, type_) for type_ in ("axb.v1", "a_b-.v1", "c.v10", "c", "d")]

    carry_out(db, ask(db, _asked(["a_b.%", "c.v1", "a_b.v1"])))

    assert {status_of(db, one) for one in wanted} == {"cancelled"}
    assert {status_of(db, one) for one in others} == {"pending"}


def _asked(patterns):
    return statements.operate(
        "cancel",
        patterns=patterns,
        statuses=None,
        created_from=None,
        created_before=None,
        reason="a test",
        attempts=3,
    )


def test_statuses_and_times_narrow_it(db):
    pending, held, old = a_run(db), a_held_run(db).id, a_run(db)
    age(db, old, 3600)
    times = db.execute("select now() - interval '10 minutes'").fetchone()

    carry_out(db, operate(db, statuses=["pending"], created_from=times[0]))

    assert [status_of(db, one) for one in (pending, held, old)] == ["cancelled", "leased", "pending"]


def test_what_is_hidden_is_left_alone(db):
    hidden = a_run(db)
    db.execute("update workflow_run set deleted_at = now() where id = %s", [hidden])

    ended = carry_out(db, operate(db))

    assert (status_of(db, hidden), ended.matched, ended.changed) == ("pending", 0, 0)


def test_what_is_recorded_after_it_was_asked_for_is_left_alone(db):
    operation = operate(db)
    later = submit(db)

    ended = carry_out(db, operation)

    assert (status_of(db, later), ended.changed) == ("pending", 0)


def test_an_id_from_elsewhere_is_reached(db):
    odd = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    db.execute("insert into workflow_run (id, type) values (%s, 'odd.v1')", [odd])

    carry_out(db, operate(db))

    assert status_of(db, odd) == "cancelled"


def test_a_run_that_fails_again_is_not_reopened_twice(db):
    type_ = a_type()
    a_run(db, status="failed", type=type_)
    operation = operate(db, "reopen")
    seen = []
    while (carried := carry(db)) is not None:
        seen.append(carried.state)
        for held in claim_many(db):
            finish(db, held, status="failed")

    assert seen[-1] == "finished"
    assert how(db, operation).changed == 1
    assert count(db, "workflow_event", "event_type = 'reopened'") == 1


def test_a_run_that_somebody_reopens_meanwhile_is_not_cancelled_twice(db):
    runs = [a_run(db), a_run(db)]
    operation = operate(db)
    while (carried := carry(db)) is not None and carried.state == "running":
        if (
            status_of(db, runs[0]) == "cancelled"
            and count(db, "workflow_event", "event_type = 'reopened'") == 0
        ):
            reopen(db, runs[0])

    assert status_of(db, runs[0]) == "pending"
    assert how(db, operation).state == "finished"


def test_a_run_that_was_locked_is_reached_when_it_is_free_and_holds_up_nobody(db, connection):
    type_ = a_type()
    first, second = submit(db, type_), submit(db, type_)
    operation, holder = operate(db), connection()
    with holder.transaction():
        holder.execute("select from workflow_run where id = %s for update", [first])
        while status_of(db, second) == "pending":
            assert carry(db) is not None
        assert status_of(db, first) == "pending"

    ended = carry_out(db, operation)

    assert statuses(db, type_) == {"cancelled": 2}
    assert (ended.state, ended.matched, ended.changed) == ("finished", 2, 2)


def test_a_run_that_is_locked_for_a_moment_alone_is_tried_again(db, connection):
    first = submit(db)
    operation, holder = operate(db), connection()
    with holder.transaction():
        holder.execute("select from workflow_run where id = %s for update", [first])
        carry(db)  # counts
        assert carry(db).state == "running"

    ended = carry_out(db, operation)

    assert (ended.state, ended.matched, ended.done, ended.changed) == ("finished", 1, 1, 1)


def test_a_run_that_is_reopened_and_claimed_in_the_same_pass_is_not_cancelled_twice(db):
    type_ = a_type()
    first, second = submit(db, type_), submit(db, type_)
    operation = operate(db, pattern=type_)
    while "cancelled" not in (status_of(db, first), status_of(db, second)):
        carry(db, limit=1)
    cancelled = first if status_of(db, first) == "cancelled" else second
    reopen(db, cancelled)
    assert cancelled in {held.id for held in claim_many(db, patterns=[type_])}

    ended = carry_out(db, operation, limit=1)

    assert status_of(db, cancelled) == "leased"
    assert (ended.state, ended.matched, ended.changed) == ("finished", 2, 2)


def test_a_run_that_stays_locked_does_not_keep_it_from_ending(db, connection):
    first = submit(db)
    operation, holder = operate(db), connection()
    with holder.transaction():
        holder.execute("select from workflow_run where id = %s for update", [first])

        ended = carry_out(db, operation)

    assert (ended.state, ended.matched, ended.changed) == ("finished", 1, 0)


# ── who carries it out ─────────────────────────────────────────────────────────────────────────────


def test_one_carries_it_out_at_a_time(db):
    for _ in range(3):
        submit(db)
    operate(db)

    assert carry(db, carrier="one") is not None
    assert carry(db, carrier="two") is None
    assert carry(db, carrier="one") is not None


def test_another_goes_on_where_one_that_is_silent_had_come_to(db):
    type_ = a_type()
    submit_many(db, [NewRun(type=type_) for _ in range(10)])
    operation = operate(db)
    while carry(db, carrier="one", limit=3, lease_seconds=0.1).changed < 6:
        pass
    db.execute("select pg_sleep(0.15)")  # the lease of the one that is silent

    ended = carry_out(db, operation, carrier="two", limit=3)

    assert statuses(db, type_) == {"cancelled": 10}
    assert (ended.matched, ended.done, ended.changed) == (10, 10, 10)
    assert count(db, "workflow_event", "event_type = 'cancelled'") == 10


def test_a_chunk_that_was_not_committed_has_not_happened(db, connection):
    type_ = a_type()
    submit_many(db, [NewRun(type=type_) for _ in range(4)])
    operation, dying = operate(db), connection()
    carry(db, lease_seconds=0.1)  # counts
    db.execute("select pg_sleep(0.15)")
    dying.execute("begin")
    assert carry(dying, carrier="dying").changed == 4
    pid = dying.info.backend_pid
    dying.close()
    # Until its server process has rolled back, the runs are locked, and passed over.
    until(lambda: not db.execute("select from pg_stat_activity where pid = %s", [pid]).rowcount, "it is gone")

    ended = carry_out(db, operation, carrier="two")

    assert statuses(db, type_) == {"cancelled": 4}
    assert ended.changed == 4


def test_operations_are_carried_out_one_after_the_other(db):
    submit(db, "a.v1"), submit(db, "b.v1")
    first, second = operate(db, pattern="a.v1"), operate(db, pattern="b.v1")

    seen = []
    while (carried := carry(db)) is not None:
        seen.append(carried.operation_id)

    assert seen == sorted(seen, key=[first.id, second.id].index)
    assert {how(db, one).state for one in (first, second)} == {"finished"}


# ── stop ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_stopped_changes_nothing_any_more_and_keeps_what_it_has_changed(db):
    type_ = a_type()
    submit_many(db, [NewRun(type=type_) for _ in range(10)])
    operation = operate(db)
    while carry(db, limit=4).changed < 4:
        pass

    assert ask(db, statements.stop_operation(operation.id)) is True
    assert ask(db, statements.stop_operation(operation.id)) is False

    assert carry(db) is None
    assert statuses(db, type_) == {"cancelled": 4, "pending": 6}
    stopped = how(db, operation)
    assert (stopped.state, stopped.changed, stopped.stopped_by) == ("stopped", 4, stopped.requested_by)
    assert stopped.ended_at is not None


def test_a_stop_waits_for_the_chunk_that_is_on_its_way(db, connection):
    submit(db)
    operation, carrier, stopper = operate(db), connection(), connection()
    with carrier.transaction():
        carry(carrier)
        stopping = in_thread(lambda: ask(stopper, statements.stop_operation(operation.id)))
        blocked(db, stopper)

    assert stopping.result(20) is True
    assert carry(db) is None


def test_to_stop_what_does_not_exist_says_so(db):
    assert ask(db, statements.stop_operation(UUID(int=1))) is None


# ── the audit ──────────────────────────────────────────────────────────────────────────────────────


def test_each_run_tells_who_asked_why_and_by_which_operation(db):
    run_id, failed = submit(db, "a.v1"), a_run(db, status="failed", type="b.v1")
    me = db.execute("select session_user").fetchone()[0]
    cancelling = operate(db, reason="ordered twice", pattern="a.v1")
    reopening = operate(db, "reopen", reason="mended", pattern="b.v1")

    carry_out(db, cancelling)

    for one, event, operation in ((run_id, "cancelled", cancelling), (failed, "reopened", reopening)):
        kind, data = last_event(db, one)
        assert (kind, data["by"], data["reason"]) == (event, me, operation.reason)
        assert data["operation"] == str(operation.id)


def test_nobody_can_pretend_that_an_operation_cancelled_a_run(db):
    plain, by_function = submit(db), submit(db)
    db.execute("""select set_config('workflow.operation', '{"by": "the boss"}', false)""")

    db.execute("update workflow_run set status = 'cancelled' where id = %s", [plain])
    cancel(db, by_function)

    assert {last_event(db, one)[1]["by"] for one in (plain, by_function)} != {"the boss"}
    assert all("the boss" not in str(last_event(db, one)[1]) for one in (plain, by_function))


@pytest.mark.parametrize(
    "statement",
    [
        "update workflow_operation set state = 'finished', ended_at = now()",
        "delete from workflow_operation",
        "truncate workflow_operation",
        "insert into workflow_operation (kind, filter, reason) values ('cancel', '{}', 'x')",
    ],
)
def test_the_record_of_operations_is_written_by_its_functions_alone(db, statement):
    operate(db)

    assert attempt(db, statement) == "WF001"


def test_runs_that_keep_no_events_are_changed_all_the_same(db):
    set_policy(db, "quiet.%", events=False)
    quiet = submit(db, "quiet.v1")

    ended = carry_out(db, operate(db))

    assert (status_of(db, quiet), ended.changed) == ("cancelled", 1)


def test_what_it_did_keeps_the_promises(db):
    for status in ("pending", "leased", "failed", "succeeded", "cancelled"):
        a_run(db, status=status)
    carry_out(db, operate(db))
    carry_out(db, operate(db, "reopen"))

    assert ask(db, statements.verify(5)) == []


# ── count, refuse ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("looks", [1, 3, 10_000])
def test_a_count_is_what_would_be_changed_in_parts_of_any_size(db, looks):
    for status in ("pending", "leased", "waiting", "failed", "succeeded"):
        for _ in range(3):
            a_run(db, status=status)

    assert (sum(counted(db, looks=looks)), sum(counted(db, "reopen", looks=looks))) == (9, 3)
    assert count(db, "workflow_operation") == 0


def test_a_count_walks_over_no_run_that_has_ended(db):
    submit_many(db, [NewRun(type="a.v1") for _ in range(50)])
    for held in claim_many(db):
        finish(db, held)
    submit(db, "a.v1")

    assert counted(db, looks=2) == [1]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"reason": " "}, "p_reason"),
        ({"reason": None}, "p_reason"),
        ({"kind": "delete"}, "p_kind"),
        ({"patterns": []}, "p_patterns"),
        ({"patterns": ["a b"]}, "p_patterns"),
        ({"patterns": [None]}, "p_patterns"),
        ({"patterns": [f"a{n}" for n in range(101)]}, "p_patterns"),
        ({"statuses": ["succeeded"]}, "p_statuses"),
        ({"statuses": []}, "p_statuses"),
        ({"kind": "reopen", "attempts": 0}, "p_attempts"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(db, change, names):
    given = {
        "kind": "cancel",
        "patterns": ["%"],
        "statuses": None,
        "created_from": None,
        "created_before": None,
        "reason": "a test",
        "attempts": 3,
    } | change

    with pytest.raises(InvalidInput, match=names):
        ask(db, statements.operate(given.pop("kind"), **given))
