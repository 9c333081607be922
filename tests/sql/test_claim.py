"""What a claim takes, in which order, and what it costs."""

from __future__ import annotations

import threading
from collections import Counter

import psycopg
import pytest

from builders import (
    Database,
    a_held_run,
    ask,
    blocks_touched,
    cancel,
    claim,
    claim_many,
    column_of,
    finish,
    heartbeat,
    release,
    status_of,
    submit,
)
from simpleworkflow import statements

FAR = "2999-01-01 00:00+00"


def claimed_types(db: Database, *patterns: str, limit: int = 100) -> list[str]:
    return [held.type for held in claim_many(db, patterns=patterns, limit=limit)]


# ── patterns ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Concurrency", "a pattern is taken literally but for its trailing percent sign", "P11")
@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("a.b", {"a.b"}),
        ("a.%", {"a.b", "a.b.v1", "a.c"}),
        ("a.b%", {"a.b", "a.b.v1"}),
        ("a%", {"a", "a-b", "a.b", "a.b.v1", "a.c", "a_b", "ab"}),
        ("%", {"a", "A", "a-b", "a.b", "a.b.v1", "a.c", "a_b", "ab", "axb", "z"} - {"axb"}),
        ("a_b", {"a_b"}),
        ("a_%", {"a_b"}),
        ("A%", {"A"}),
        ("A", {"A"}),
        ("a", {"a"}),
        ("a.B", set()),
        ("%b", set()),
        ("a%b", set()),
        ("a%%", set()),
        ("a\\%", set()),
        ("a\\_b", set()),
        ("\\%", set()),
        ("", set()),
        ("~", set()),
        ("é%", set()),
        ("' or true --", set()),
    ],
)
def test_only_a_trailing_percent_sign_is_special_in_a_pattern(db, pattern, taken):
    for type_ in ("a", "A", "a-b", "a.b", "a.b.v1", "a.c", "a_b", "ab", "z"):
        submit(db, type_)

    types = claimed_types(db, pattern)

    assert set(types) == taken
    assert len(types) == len(taken)


@pytest.mark.parametrize(
    "patterns",
    [
        ("a.%", "a.b"),
        ("a.b", "a.%"),
        ("%", "a.%", "a.b.%"),
        ("a.b", "a.b"),
        ("a%", "a.%", "%"),
        ("b%", "a%", "a.b"),
    ],
)
def test_overlapping_patterns_take_each_run_once(db, patterns):
    for type_ in ("a.a", "a.b", "a.b.c", "a.c"):
        submit(db, type_)

    types = claimed_types(db, *patterns)

    assert types == sorted(set(types))
    assert set(types) >= ({"a.b"} if patterns == ("a.b", "a.b") else {"a.a", "a.b", "a.b.c", "a.c"})


@pytest.mark.parametrize("patterns", [("%",), ("a.a", "a.b"), ("%", "a.a", "a.a%", "a.b")])
@pytest.mark.parametrize("paused", [None, "a.0", "a.aa", "a.z"])
@pytest.mark.parametrize(
    "lanes",
    [
        [("a.a", 5)],
        [("a.a", -(2**31)), ("a.a", 2**31 - 1)],
        [("a.a", 2**31 - 1), ("a.b", 0)],
        [("a.a", 1), ("a.b", 2), ("a.a", 3), ("a.b", 4)],
        [("a.b", 1), ("a.a", 2), ("a.a", 3), ("a.a", 4)],
    ],
)
def test_whatever_follows_the_first_lane_all_are_claimed_once_in_their_order(db, lanes, paused, patterns):
    for type_, priority in reversed(lanes):
        submit(db, type_, priority=priority)
    if paused is not None:
        submit(db, paused, priority=-1)
        db.execute(
            "insert into workflow_registry (workflow_name, runtime, is_enabled) values (%s, '', false)",
            [paused],
        )

    got = claim_many(db, patterns=patterns)

    taken = [(held.type, column_of(db, held.id, "priority")) for held in got]
    assert taken == sorted(lanes, key=lambda lane: lane[1])


def test_no_pattern_takes_nothing(db):
    submit(db, "a.b")

    assert claimed_types(db) == []
    assert db.execute("select id from claim('w', null, 10)").fetchall() == [(None,)]


# ── what is not claimed ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "left"),
    [("a.b", {"a.c", "A.b", "b"}), ("a.%", {"A.b", "b"}), ("%", set()), ("a_b", {"a.b", "a.c", "A.b", "b"})],
)
def test_what_the_registry_disables_stays_pending(db, name, left):
    db.execute(
        "insert into workflow_registry (workflow_name, runtime, is_enabled) values (%s, 'python', false)",
        [name],
    )
    for type_ in ("a.b", "a.c", "A.b", "b"):
        submit(db, type_)

    types = claimed_types(db, "%")

    assert set(types) == left


def test_a_type_that_is_enabled_again_is_claimed_and_workers_do_not_enable_it(db):
    submit(db, "a.b")
    db.execute(
        "insert into workflow_registry (workflow_name, runtime, is_enabled) values ('a.b', 'python', false)"
    )
    ask(db, statements.register_types(["a.b"]))
    while_disabled = claimed_types(db, "%")

    db.execute("update workflow_registry set is_enabled = true")

    assert while_disabled == []
    assert claimed_types(db, "%") == ["a.b"]


def test_a_hidden_run_is_not_claimed_until_it_is_shown_again(db):
    run_id = submit(db, "a.b")
    db.execute("update workflow_run set deleted_at = now() where id = %s", [run_id])
    while_hidden = claimed_types(db, "%")

    db.execute("update workflow_run set deleted_at = null where id = %s", [run_id])

    assert while_hidden == []
    assert claimed_types(db, "%") == ["a.b"]


def test_a_run_is_not_claimed_before_it_is_due(db):
    submit(db, "a.b", delay=3600)

    assert claimed_types(db, "%") == []


# ── order ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_better_priority_is_claimed_first_then_the_older_run(db):
    seed(db, "a.worst", 1, priority=2147483647, age_seconds=3600)
    seed(db, "a.late", 1, priority=10, age_seconds=1)
    seed(db, "a.early", 1, priority=10, age_seconds=60)
    seed(db, "a.best", 1, priority=-2147483648)

    order = [held.type for _ in range(4) for held in claim_many(db, limit=1)]

    assert order == ["a.best", "a.early", "a.late", "a.worst"]


def test_a_batch_comes_in_the_order_in_which_it_should_run(db):
    for priority in (30, 10, 20):
        submit(db, "a.b", priority=priority)

    got = claim_many(db, limit=3)

    assert [column_of(db, held, "priority") for held in got] == [10, 20, 30]


def test_better_runs_that_are_due_tomorrow_hide_nothing(db):
    for _ in range(20):
        submit(db, "a.b", priority=1, delay=86400)
    due = submit(db, "a.b", priority=500)

    got = claim_many(db, limit=5)

    assert [held.id for held in got] == [due]


def test_the_types_of_one_priority_share_a_batch(db):
    seed(db, "a.flood", 500)
    seed(db, "a.small", 30)
    seed(db, "a.other", 30)

    shares = Counter(claimed_types(db, "a.%", limit=60))

    assert shares == {"a.flood": 20, "a.small": 20, "a.other": 20}


def test_what_one_type_leaves_of_its_share_goes_to_the_others(db):
    seed(db, "a.flood", 500)
    seed(db, "a.few", 3)

    shares = Counter(claimed_types(db, "a.%", limit=60))

    assert shares == {"a.flood": 57, "a.few": 3}


def test_of_more_types_than_the_limit_those_that_waited_longest_come_first(db):
    for number in range(30):
        seed(db, f"a.type{number:02}", 1, age_seconds=1000 + number)
        seed(db, f"a.type{number:02}", 3, age_seconds=100 - number)

    claims = [claim_many(db, limit=3) for _ in range(20)]

    turns = [{held.type for held in claim} for claim in claims]
    # Nobody comes a second time before everybody has come once: with equal ages it is first come, first served.
    assert set().union(*turns[:10]) == {f"a.type{number:02}" for number in range(30)}
    assert all(len(turn) == 3 for turn in turns[:10])


@pytest.mark.parametrize(("limit", "taken"), [(-1, 0), (0, 0), (1, 1), (7, 7), (40, 40), (100_000, 40)])
def test_a_claim_takes_at_most_its_limit(db, limit, taken):
    for number in range(4):
        seed(db, f"a.t{number}", 10)

    rows = db.execute("select id from claim('w', '{%%}', %s)", [limit]).fetchall()

    assert len([row for row in rows if row[0]]) == taken


def test_a_claim_without_a_limit_is_refused(db):
    with pytest.raises(psycopg.Error, match="p_limit: expected at most 100000, got null"):
        db.execute("select id from claim('w', '{%%}', null)")


# ── next_due_at ────────────────────────────────────────────────────────────────────────────────────


def due_in(db: Database, *patterns: str) -> float | None:
    got = ask(db, statements.exchange("w", [], patterns, limit=10, lease_seconds=30))
    return got.due_in_seconds


def test_a_claim_that_finds_nothing_tells_when_the_next_run_is_due(db):
    submit(db, "a.b", priority=1, delay=500)
    submit(db, "a.b", priority=900, delay=100)
    submit(db, "a.c", delay=300)
    submit(db, "b.b", delay=5)

    assert due_in(db, "a.%") == pytest.approx(100, abs=5)
    assert due_in(db, "a.c") == pytest.approx(300, abs=5)
    assert due_in(db, "c.%") is None


def test_the_next_due_time_looks_past_runs_that_others_are_claiming(db, connection):
    submit(db, "a.b")
    submit(db, "a.b", delay=200)
    other = connection()

    with other.transaction():
        claim(other)
        told = due_in(db, "%")

    assert told == pytest.approx(200, abs=5)


def test_the_next_due_time_looks_past_a_lane_that_others_have_locked_and_one_that_is_due_tomorrow(
    db, connection
):
    submit(db, "a.b", priority=1, delay=500)
    submit(db, "a.b", priority=2)
    submit(db, "a.b", priority=3, delay=200)
    other = connection()

    with other.transaction():
        claim(other)
        told = due_in(db, "%")

    assert told == pytest.approx(200, abs=5)


def test_disabled_and_hidden_runs_do_not_count_as_due(db):
    hidden = submit(db, "a.b", delay=50)
    db.execute("update workflow_run set deleted_at = now() where id = %s", [hidden])
    submit(db, "b.b", delay=60)
    db.execute(
        "insert into workflow_registry (workflow_name, runtime, is_enabled) values ('b.%', 'python', false)"
    )

    assert due_in(db, "%") is None


@pytest.mark.parametrize(
    "run_id", ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
)
def test_whatever_id_a_producer_gave_its_run_is_claimed(db, run_id):
    db.execute("insert into workflow_run (id, type) values (%s, 'a.b')", [run_id])

    assert [held.id for held in claim_many(db, limit=5)] == [run_id]


# ── several at once ────────────────────────────────────────────────────────────────────────────────


def test_concurrent_claims_never_share_a_run(db, connection):
    seed(db, "a.b", 300)
    seed(db, "a.c", 300)
    taken: list[str] = []

    def drain(conn: Database, name: str) -> None:
        while got := claim_many(conn, worker=name, limit=7):
            taken.extend(f"{held.id} {held.fencing_token}" for held in got)

    threads = [threading.Thread(target=drain, args=(connection(), f"w{number}")) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == len(set(taken)) == 600
    assert {one.split()[1] for one in taken} == {"1"}


def test_a_claim_waits_for_nobody(db, connection):
    first, second = submit(db, "a.b"), submit(db, "a.b")
    other = connection()

    with other.transaction():
        held = claim(other)
        db.execute("set statement_timeout = '2s'")
        mine = claim(db)

    assert {held.id, mine.id} == {first, second}


def test_the_token_grows_with_every_claim(db):
    held = a_held_run(db)

    tokens = []
    for _ in range(5):
        release(db, held)
        held = claim(db)
        tokens.append(held.fencing_token)

    assert tokens == [2, 3, 4, 5, 6]


def test_one_exchange_finishes_the_last_batch_and_claims_the_next(db):
    held = a_held_run(db, type="a.b")
    lost = a_held_run(db, type="a.b")
    release(db, lost)
    waiting = submit(db, "a.c")
    done = [
        statements.Finished(held.id, 1, "succeeded", "{}"),
        statements.Finished(lost.id, 7, "succeeded", "{}"),
    ]

    got = ask(db, statements.exchange("worker", done, ["a.%"], limit=10, lease_seconds=30))

    assert {one.id for one in got.claimed} == {lost.id, waiting}
    assert got.refused == {lost.id}
    assert status_of(db, held.id) == "succeeded"


# ── what it costs ──────────────────────────────────────────────────────────────────────────────────

BACKLOG = 100_000


@pytest.fixture(scope="module")
def seeded(module_db):
    """100,000 pending runs that nobody here claims, and no statistics about them."""
    module_db.execute("alter table workflow_run set (autovacuum_enabled = off)")
    # A table analyzed while it was empty: the worst that the planner can believe.
    module_db.execute("analyze workflow_run")
    seed(module_db, "backlog.other", BACKLOG // 2)
    seed(module_db, "mine.tomorrow", BACKLOG // 4, priority=1, run_at=FAR)
    seed(module_db, "mine.flood", BACKLOG // 4, priority=1, run_at=FAR)
    return module_db


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_claim_neither_scans_nor_sorts_the_backlog(seeded, analyzed):
    if analyzed:
        seeded.execute("analyze workflow_run")
    claim_many(seeded, patterns=["mine.%"], limit=10)
    seed(seeded, "mine.flood", 50)

    touched = blocks_touched(seeded, "select * from claim('w', '{mine.%}', 50)")

    # 50 rows: each a heap and some index blocks, a new version and an event.  The backlog is 3,000 blocks.
    assert touched < 2_500
    assert blocks_touched(seeded, "select * from claim('w', '{mine.%}', 50)") < 200


def test_a_change_reads_its_own_runs_also_with_a_plan_made_for_an_empty_table(db):
    # Given a session that has planned what changes runs while the table was small,
    db.execute("alter table workflow_run set (autovacuum_enabled = off)")
    a_held_run(db)
    db.execute("vacuum analyze workflow_run")
    for _ in range(10):
        held = a_held_run(db)
        heartbeat(db, held)
        db.execute("select progress('worker', %s, %s, '{}')", [held.id, held.fencing_token])
        finish(db, held)
        release(db, a_held_run(db))
        cancel(db, held.id)
        db.execute("select * from reopen(%s::uuid[])", [[held.id]])
        cancel(db, held.id)

    # when a backlog comes and nobody analyzes the table again,
    seed(db, "backlog.other", 20_000)
    held = a_held_run(db)

    # then each of the functions reads some blocks, not 20,000 index entries.
    held_arrays = f"'worker', '{{{held.id}}}', '{{{held.fencing_token}}}'"
    calls = {
        "heartbeat": f"{held_arrays}, 30",
        "progress": f"'worker', '{held.id}', {held.fencing_token}, '{{}}'",
        "finish": f"{held_arrays}, '{{succeeded}}'",
        "release": held_arrays,
        "cancel": f"'{{{held.id}}}'",
        "reopen": f"'{{{held.id}}}'",
    }
    touched = {name: blocks_touched(db, f"select * from {name}({values})") for name, values in calls.items()}
    assert max(touched.values()) < 150, touched


def seed(
    db: Database,
    type_: str,
    number: int,
    *,
    priority: int = 100,
    run_at: str | None = None,
    age_seconds: float = 60,
) -> None:
    db.execute(
        "insert into workflow_run (type, priority, run_at)"
        " select %s, %s, coalesce(%s::timestamptz, now() - make_interval(secs => %s)) from generate_series(1, %s)",
        [type_, priority, run_at, age_seconds, number],
    )
