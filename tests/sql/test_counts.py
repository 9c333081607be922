"""Counts are what ``select count(*)`` says, whoever changed runs and however, folded or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import (
    Database,
    a_held_run,
    a_run,
    a_type,
    ask,
    cancel,
    claim,
    claim_many,
    expire,
    finish,
    lapse,
    release,
    reopen,
    retry,
    set_policy,
    submit,
)
from simpleworkflow.statements import fold_counts, verify
from waits import blocked, in_thread

MISCOUNTED = "what is counted is what is there"


def counts(db: Database) -> dict[tuple[str, str], int]:
    """Return what is said about how many runs there are."""
    return {(type_, status): runs for type_, status, runs in db.execute("select * from counts()")}


def present(db: Database) -> dict[tuple[str, str], int]:
    """Return how many runs there are."""
    rows = db.execute(
        "select type, status, count(*) from workflow_run where deleted_at is null group by type, status"
    )
    return {(type_, status): runs for type_, status, runs in rows}


def happened(db: Database) -> dict[str, int]:
    """Return what has happened to runs, as the rates of ten minutes tell."""
    row = db.execute("select series from stats(600)").fetchone()
    assert row is not None
    return {name: sum(point[name] for point in row[0]) for name in row[0][0] if name != "at"}


# ── each way a run may change ──────────────────────────────────────────────────────────────────────


def _retried(db: Database) -> None:
    assert retry(db, a_held_run(db))


def _released(db: Database) -> None:
    assert release(db, a_held_run(db))


def _expired(db: Database) -> None:
    lapse(db, a_held_run(db))
    lapse(db, a_held_run(db, max_attempts=1))
    assert sorted(expire(db).values()) == ["failed", "pending"]


def _reopened(db: Database) -> None:
    for status in ("failed", "cancelled"):
        assert reopen(db, a_run(db, status=status))


def _cancelled(db: Database) -> None:
    for status in ("pending", "leased"):
        assert cancel(db, a_run(db, status=status))


def _cancelled_by_sql(db: Database) -> None:
    for status in ("pending", "leased", "cancelled"):
        run_id = a_run(db, status=status)
        db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])


def _hidden_and_shown(db: Database) -> None:
    for status in ("pending", "failed"):
        run_id = a_run(db, status=status)
        db.execute("update workflow_run set deleted_at = now() where id = %s", [run_id])
    db.execute("update workflow_run set deleted_at = null where id = %s", [run_id])


def _cancelled_and_hidden(db: Database) -> None:
    run_id = a_run(db, status="leased")
    db.execute("update workflow_run set status = 'cancelled', deleted_at = now() where id = %s", [run_id])


def _edited(db: Database) -> None:
    db.execute("update workflow_run set priority = 1 where id = %s", [a_run(db)])


def _pruned(db: Database) -> None:
    a_run(db, status="succeeded")
    hidden = a_run(db, status="failed")
    db.execute("update workflow_run set deleted_at = now() where id = %s", [hidden])
    assert db.execute("select pruned from prune('infinity')").fetchone() == (2,)


def _deleted_when_they_succeed(db: Database) -> None:
    type_ = a_type()
    set_policy(db, type_, events=False, succeeded=False)
    assert finish(db, a_held_run(db, type=type_))
    assert finish(db, a_held_run(db, type=type_), status="failed")


def _in_many_types_at_once(db: Database) -> None:
    db.execute(
        "insert into workflow_run (type) select 'many.' || number % 7 from generate_series(1, 100) as number"
    )
    for held in claim_many(db, patterns=["many.%"], limit=50)[:25]:
        finish(db, held, status="failed" if held.type == "many.3" else "succeeded")
    db.execute("update workflow_run set status = 'cancelled' where status in ('pending', 'leased')")


def _rolled_back(db: Database) -> None:
    with db.transaction():
        submit(db)
        try:
            with db.transaction():
                submit(db)
                raise psycopg.Rollback
        finally:
            submit(db)


CHANGES: list[Callable[[Database], None]] = [
    *(_retried, _released, _expired, _reopened, _cancelled, _cancelled_by_sql, _hidden_and_shown),
    *(
        _cancelled_and_hidden,
        _edited,
        _pruned,
        _deleted_when_they_succeed,
        _in_many_types_at_once,
        _rolled_back,
    ),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_counts_are_what_is_there_folded_or_not(db: Database, change: Callable[[Database], None]) -> None:
    a_run(db)

    change(db)
    unfolded = counts(db)
    folded = ask(db, fold_counts())

    assert unfolded == present(db) == counts(db)
    assert folded > 0
    assert ask(db, fold_counts()) == 0
    assert [one for one in ask(db, verify(5)) if one.law == MISCOUNTED] == []


def test_rates_tell_each_thing_that_happened_folded_or_not(db: Database) -> None:
    for status in ("pending", "succeeded", "failed", "cancelled"):
        a_run(db, status=status)
    _expired(db)
    _retried(db)
    _hidden_and_shown(db)
    expected = {
        "submitted": 4 + 2 + 1 + 2,
        "claimed": 2 + 2 + 1 + 1,
        "succeeded": 1,
        "failed": 1 + 1 + 1,
        "retried": 1,
        "cancelled": 1,
        "expired": 2,
    }

    unfolded = happened(db)
    ask(db, fold_counts())

    assert unfolded == expected
    assert happened(db) == expected
    by_step = db.execute(
        "select step_seconds, sum(submitted), sum(expired) from workflow_rate where type = '' group by 1 order by 1"
    )
    assert by_step.fetchall() == [(10, 9, 2), (60, 9, 2), (3600, 9, 2)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2)), max_size=25))
def test_any_row_of_changes_leaves_counts_that_are_what_is_there(
    module_db: Database, changes: list[tuple[int, int]]
) -> None:
    db = module_db

    for kind, which in changes:
        _change(db, kind, f"any.{which}")

    assert counts(db) == present(db)


def _change(db: Database, kind: int, type_: str) -> None:
    if kind == 0:
        submit(db, type_)
    elif kind == 1:
        db.execute("insert into workflow_run (type) select %s from generate_series(1, 3)", [type_])
    elif kind == 2:
        claim_many(db, patterns=[type_], limit=2)
    elif kind in (3, 4, 5) and (held := claim(db, pattern="any.%")):
        finish(db, held, status=("succeeded", "failed", "pending")[kind - 3], delay_seconds=0)
    elif kind == 6:
        db.execute(
            "update workflow_run set status = 'cancelled' where status = 'pending' and type = %s", [type_]
        )
    elif kind == 7:
        db.execute(
            "select reopen(array(select id from workflow_run where status in ('failed', 'cancelled')))"
        )
    elif kind == 8:
        db.execute(
            "update workflow_run set deleted_at = case when deleted_at is null then now() end"
            " where type = %s and status not in ('leased', 'waiting')",
            [type_],
        )
    elif kind == 9:
        db.execute("select prune('infinity', p_limit => 2)")
    else:
        ask(db, fold_counts(limit=2))


# ── folding ────────────────────────────────────────────────────────────────────────────────────────


def test_a_transaction_that_is_open_while_others_fold_is_counted_when_it_ends(
    db: Database, connection: Callable[..., Database]
) -> None:
    slow, type_ = connection(), a_type()
    with slow.transaction():
        submit(slow, type_)
        for _ in range(3):
            submit(db, type_)
            ask(db, fold_counts())
        submit(slow, type_)
        assert counts(db) == {(type_, "pending"): 3}
    late = counts(db)

    folded = ask(db, fold_counts())

    assert late == {(type_, "pending"): 5} == counts(db)
    assert folded == 2


def test_one_who_folds_in_the_middle_of_a_transaction_loses_nothing_of_it(db: Database) -> None:
    type_ = a_type()

    with db.transaction():
        submit(db, type_)
        assert ask(db, fold_counts()) == 1
        submit(db, type_)

    assert counts(db) == {(type_, "pending"): 2}
    assert ask(db, fold_counts()) == 1
    assert counts(db) == {(type_, "pending"): 2}


def test_a_fold_of_a_part_leaves_the_rest_to_the_next(
    db: Database, connection: Callable[..., Database]
) -> None:
    slow, type_ = connection(), a_type()
    with slow.transaction():
        for _ in range(4):
            submit(slow, type_)
        for _ in range(3):
            submit(db, type_)
        assert ask(db, fold_counts(limit=2)) == 2
        assert ask(db, fold_counts()) == 1

    folded = []
    while not folded or folded[-1]:
        folded.append(ask(db, fold_counts(limit=3)))
        assert counts(db) == {(type_, "pending"): 7}

    assert folded == [3, 1, 0]


def test_a_fold_of_nothing_is_refused(db: Database) -> None:
    with pytest.raises(psycopg.Error, match="p_limit: expected 1 or more, got 0"):
        db.execute("select fold(0)")


def test_a_fold_that_is_undone_has_not_been(db: Database) -> None:
    type_ = a_type()
    submit(db, type_)

    with db.transaction():
        assert ask(db, fold_counts()) == 1
        raise psycopg.Rollback

    assert counts(db) == {(type_, "pending"): 1}
    assert ask(db, fold_counts()) == 1
    assert counts(db) == {(type_, "pending"): 1}


def test_of_two_who_fold_one_does_and_the_other_does_not_wait(
    db: Database, connection: Callable[..., Database]
) -> None:
    submit(db)
    with connection() as other, other.transaction():
        assert ask(other, fold_counts()) == 1

        assert ask(db, fold_counts()) is None

    assert ask(db, fold_counts()) == 0


def test_who_comes_soon_after_another_does_not_fold(db: Database) -> None:
    submit(db)
    assert ask(db, fold_counts(pause_seconds=600)) == 1
    submit(db)

    assert ask(db, fold_counts(pause_seconds=600)) is None


def test_counts_stay_right_while_many_write_fold_and_read(
    db: Database, connection: Callable[..., Database]
) -> None:
    types = [a_type() for _ in range(3)]
    stop = threading.Event()

    def write(number: int) -> None:
        conn = connections[number]
        for step in range(40):
            submit(conn, types[step % 3])
            if held := claim(conn, worker=f"w{number}"):
                finish(conn, held, status="failed" if step % 5 == 0 else "succeeded")
            if step % 10 == 0:
                conn.execute(
                    "update workflow_run set status = 'cancelled' where id in (select id from workflow_run"
                    " where status = 'pending' order by id limit 2 for update skip locked)"
                )

    def fold(conn: Database) -> None:
        while not stop.is_set():
            ask(conn, fold_counts(limit=7))

    def read(conn: Database) -> list[object]:
        wrong: list[object] = []
        while not stop.is_set():
            wrong += conn.execute("select * from miscounts()").fetchall()
        return wrong

    connections = [connection() for _ in range(7)]
    with ThreadPoolExecutor(7) as pool:
        others = [pool.submit(fold, connections[4]), pool.submit(fold, connections[5])]
        reading = pool.submit(read, connections[6])
        try:
            for writer in [pool.submit(write, number) for number in range(4)]:
                writer.result()
        finally:
            stop.set()
        for one in others:
            one.result()

    assert reading.result() == []
    assert counts(db) == present(db)


def test_a_snapshot_that_is_held_reads_its_own_counts(
    db: Database, connection: Callable[..., Database]
) -> None:
    type_ = a_type()
    submit(db, type_)
    old = connection()
    with old.transaction():
        old.execute("set transaction isolation level repeatable read")
        before = counts(old)

        submit(db, type_)
        ask(db, fold_counts())

        assert counts(old) == before == present(old)
    assert counts(old) == {(type_, "pending"): 2}


@pytest.mark.parametrize("from_xid", ["4611686018427387904", "4"])
def test_a_copy_on_another_server_folds_all_the_same(db: Database, from_xid: str) -> None:
    type_ = a_type()
    submit(db, type_)
    ask(db, fold_counts())
    # What a dump brings to another server.
    db.execute("update workflow_fold set from_xid = %s::text::xid8, server_id = server_id + 1", [from_xid])

    submit(db, type_)
    unfolded = counts(db)
    folded = ask(db, fold_counts())

    assert unfolded == {(type_, "pending"): 2} == counts(db)
    assert folded == 1
    submit(db, type_)
    assert counts(db) == {(type_, "pending"): 3}


def test_a_copy_that_is_folded_in_parts_loses_nothing(db: Database) -> None:
    type_ = a_type()
    db.execute(
        "update workflow_fold set from_xid = '4611686018427387904', server_id = server_id + 1, open_xids = '{}'"
    )
    for _ in range(3):
        submit(db, type_)
    db.execute(
        "update workflow_delta set xid = '4611686018427387905' where ctid = (select min(ctid) from workflow_delta)"
    )

    while ask(db, fold_counts(limit=1)):
        assert counts(db) == {(type_, "pending"): 3}
    submit(db, type_)

    assert counts(db) == {(type_, "pending"): 4} == present(db)


# ── recount ────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_changed_with_the_triggers_off_is_found_and_put_right(
    db: Database, superuser: Database
) -> None:
    type_ = a_type()
    submit(db, type_)
    superuser.execute("set session_replication_role = replica")
    superuser.execute("insert into workflow_run (type) select 'restored.v1' from generate_series(1, 3)")
    superuser.execute("delete from workflow_run where type = %s", [type_])
    found = {one.found for one in ask(db, verify(5)) if one.law == MISCOUNTED}

    corrected = db.execute("select recount()").fetchone()

    assert found == {
        f"1 pending runs of type {type_} were counted, there are 0",
        "0 pending runs of type restored.v1 were counted, there are 3",
    }
    assert corrected == (2,)
    assert counts(db) == present(db) == {("restored.v1", "pending"): 3}
    assert db.execute("select recount()").fetchone() == (0,)


def test_two_who_recount_at_once_put_right_once(
    db: Database, superuser: Database, connection: Callable[..., Database]
) -> None:
    superuser.execute("set session_replication_role = replica")
    superuser.execute("insert into workflow_run (type) values ('restored.v1')")
    first, second = connection(), connection()
    with first.transaction():
        assert first.execute("select recount()").fetchone() == (1,)
        waiting = in_thread(lambda: second.execute("select recount()").fetchone())
        blocked(db, second)

    assert waiting.result(30) == (0,)
    assert counts(db) == {("restored.v1", "pending"): 1}


# ── pauses ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_is_kept_with_who_when_and_why_however_it_was_made(db: Database) -> None:
    assert db.execute("select pause('a.%', 'broken'), pause('a.%')").fetchone() == (True, False)
    db.execute("insert into workflow_registry (workflow_name, runtime) values ('b.v1', 'python')")
    db.execute("update workflow_registry set is_enabled = false where workflow_name = 'b.v1'")
    db.execute("update workflow_registry set description = 'b' where workflow_name = 'b.v1'")
    present = db.execute("select pattern, reason, paused_by = session_user from list_pauses()").fetchall()

    assert db.execute("select resume('a.%'), resume('a.%'), resume('b.v1')").fetchone() == (True, False, True)

    assert present == [("a.%", "broken", True), ("b.v1", None, True)]
    assert db.execute("select * from list_pauses()").fetchall() == []
    kept = db.execute(
        "select pattern, reason, resumed_at >= paused_at, resumed_by = session_user from workflow_pause order by id"
    )
    assert kept.fetchall() == [("a.%", "broken", True, True), ("b.v1", None, True, True)]
    assert db.execute("select workflow_name from workflow_registry").fetchall() == [("b.v1",)]


def test_what_a_paused_pattern_covers_is_not_claimed_until_it_is_resumed(db: Database) -> None:
    run_id = submit(db, "paused.a.v1")
    db.execute("select pause('paused.%')")
    assert claim(db) is None

    db.execute("select resume('paused.%')")

    held = claim(db)
    assert held is not None
    assert held.id == run_id


def test_the_history_of_pauses_is_written_by_nothing_else(db: Database) -> None:
    db.execute("select pause('a.%')")

    for change in (
        "update workflow_pause set reason = 'mine'",
        "delete from workflow_pause",
        "insert into workflow_pause (pattern) values ('b.%')",
    ):
        with pytest.raises(psycopg.Error, match="is refused"):
            db.execute(change)


# ── types, stats ───────────────────────────────────────────────────────────────────────────────────


def test_stats_tell_what_is_due_and_since_when(db: Database) -> None:
    submit(db, "now.v1")
    submit(db, "now.v1", priority=5)
    submit(db, "later.v1", delay=3600)
    db.execute("update workflow_run set run_at = now() - interval '1 minute' where priority = 5")

    row = db.execute(
        "select due, due_is_exact, oldest_due_seconds, runs ->> 'pending' from stats()"
    ).fetchone()

    assert row is not None
    assert row[:2] == (2, True)
    assert 60 <= row[2] < 600
    assert row[3] == "3"


def test_who_asks_often_hands_in_what_was_due(db: Database) -> None:
    submit(db, "now.v1")
    submit(db, "later.v1", delay=3600)
    db.execute("update workflow_run set run_at = now() - interval '1 minute' where type = 'now.v1'")
    due = db.execute("select look_due()::text").fetchone()
    assert due is not None
    submit(db, "later.v1", delay=7200)
    db.execute("update workflow_run set run_at = now() - interval '1 hour' where type = 'now.v1'")

    stats = db.execute(
        "select due, round(oldest_due_seconds / 60), runs ->> 'pending' from stats(300, %s)", due
    )
    types = db.execute("select type, round(oldest_due_seconds / 60) from types(300, %s) order by type", due)

    assert stats.fetchall() == [(2, 1, "3")]  # it knew of one later run
    assert types.fetchall() == [("later.v1", None), ("now.v1", 1)]


def test_where_nothing_waits_nothing_is_due_whatever_was(db: Database) -> None:
    type_ = a_type()
    submit(db, type_)
    due = db.execute("select look_due()::text").fetchone()
    assert due is not None
    assert claim(db) is not None

    stats = db.execute("select due, due_is_exact, oldest_due_seconds from stats(300, %s)", due)
    types = db.execute("select oldest_due_seconds from types(300, %s) where type = %s", [*due, type_])

    assert stats.fetchall() == [(0, True, None)]
    assert types.fetchall() == [(None,)]


def test_what_is_due_is_not_told_where_it_would_take_long(db: Database) -> None:
    for table in ("now() - interval '1 second'", "now() + interval '1 hour'"):
        db.execute(
            f"insert into workflow_run (type, run_at) select 'a.v1', {table} from generate_series(1, 30)"
        )

    lanes = db.execute("select due, later from look_into_lanes(p_looks => 20)").fetchall()
    more = db.execute("select due, later from look_into_lanes(p_looks => 50)").fetchall()

    assert lanes == [(None, None)]
    assert more == [(30, 30)]


def test_a_type_tells_how_long_its_runs_waited_and_ran(db: Database) -> None:
    type_ = a_type()
    for _ in range(3):
        assert finish(db, a_held_run(db, type=type_))
    assert retry(db, a_held_run(db, type=type_))
    held = claim(db)
    assert held is not None
    assert finish(db, held)

    row = db.execute("select wait, run from types() where type = %s", [type_]).fetchone()

    assert row is not None
    wait, run = row
    assert (wait["count"], run["count"]) == (3, 4)
    assert all(0 <= seconds < 60 for seconds in wait["seconds"] + run["seconds"])


def test_a_type_tells_who_handles_it_and_what_pauses_it(db: Database) -> None:
    db.execute("select register_types(array['a.%', 'a.b.v1', 'c.v1'])")
    for type_ in ("a.b.v1", "a.c.v1", "d.v1"):
        submit(db, type_)
    db.execute("select pause('a.b.%')")

    rows = db.execute("select type, handled_by, disabled_by, is_enabled from types()").fetchall()

    assert rows == [
        ("a.b.v1", "a.b.v1", "a.b.%", False),
        ("a.c.v1", "a.%", None, True),
        ("c.v1", "c.v1", None, True),
        ("d.v1", None, None, True),
    ]


@pytest.mark.parametrize("seconds", [9, 2592001, "NaN", None])
def test_a_window_that_nobody_keeps_is_refused(db: Database, seconds: object) -> None:
    for function in ("stats", "types"):
        with pytest.raises(psycopg.Error, match="window_seconds: expected 10 to 2592000"):
            db.execute(f"select * from {function}(%s::double precision)", [seconds])
