"""Claims that go on where earlier ones have come to."""

from __future__ import annotations

from collections import Counter

import pytest

from builders import Database, Held, ask, column_of, finish, release, submit
from simpleworkflow import statements
from sql.test_claim import blocks_touched, seed


class Claimer:
    """A worker that remembers its lanes."""

    def __init__(self, db: Database, *patterns: str) -> None:
        self.db = db
        self.patterns = patterns or ("%",)
        self.lanes = "{}"
        self.look_seconds: float | None = None

    def claim(self, limit: int, *, look: bool = False) -> list[Held]:
        asking = statements.exchange(
            "worker", [], self.patterns, limit=limit, lease_seconds=30, held=1, lanes=self.lanes, is_look=look
        )
        answer = ask(self.db, asking)
        assert answer.lanes is not None
        self.lanes, self.look_seconds = answer.lanes, answer.look_seconds
        return [Held(one.id, one.type, one.attempt, one.fencing_token, "worker") for one in answer.claimed]

    def types(self, limit: int, *, look: bool = False) -> Counter[str]:
        return Counter(held.type for held in self.claim(limit, look=look))


def test_a_look_tells_what_it_cost_and_the_next_claim_goes_on_from_there(db):
    ids = [submit(db, "a.b") for _ in range(9)]
    claimer = Claimer(db)

    first, looked = claimer.claim(3, look=True), claimer.look_seconds
    second, third = claimer.claim(3), claimer.claim(100)

    assert looked is not None
    assert looked > 0
    assert claimer.look_seconds is None
    assert [str(held.id) for held in [*first, *second, *third]] == ids


def test_without_a_look_nothing_is_claimed_of_what_nobody_has_found(db):
    submit(db, "a.b")

    assert Claimer(db).claim(10) == []


def test_a_lane_that_was_emptied_is_remembered(db):
    claimer = Claimer(db)
    submit(db, "a.b")
    claimer.claim(10, look=True)
    assert claimer.claim(10) == []

    submit(db, "a.b")

    assert len(claimer.claim(10)) == 1


def test_a_look_that_finds_nothing_forgets_nothing(db):
    claimer = Claimer(db)
    submit(db, "a.b")
    claimer.claim(10, look=True)
    assert claimer.claim(10, look=True) == []

    submit(db, "a.b")

    assert len(claimer.claim(10)) == 1


@pytest.mark.parametrize("how", ["committed late", "given back", "retried", "of another lane"])
def test_what_lies_behind_is_found_by_the_next_look(db, connection, how):
    claimer, other = Claimer(db), connection()
    submit(db, "a.b")
    if how == "committed late":
        with other.transaction():
            submit(other, "a.b")
            submit(db, "a.b")
            claimer.claim(10, look=True)
    else:
        (held, *_) = claimer.claim(1, look=True)
        submit(db, "a.b")
        claimer.claim(1)
        if how == "given back":
            release(db, held)
        elif how == "retried":
            db.execute("update workflow_run set run_at = run_at where false")
            finish(db, held, status="pending", delay_seconds=0)
            db.execute("update workflow_run set run_at = now() - interval '1 hour' where id = %s", [held.id])
        else:
            submit(db, "a.c")

    assert claimer.claim(10) == []
    assert len(claimer.claim(10, look=True)) == 1


def test_of_two_hundred_types_each_has_its_turn(db):
    for number in range(200):
        seed(db, f"a.type{number:03}", 100)
    claimer = Claimer(db)

    turns = [claimer.types(250, look=number == 0) for number in range(20)]

    assert all(len(turn) == 10 and set(turn.values()) == {25} for turn in turns)
    assert len(set().union(*turns)) == 200


def test_who_floods_leaves_the_others_their_turn(db):
    for number in range(20):
        seed(db, f"a.flood{number:02}", 1000, age_seconds=600)
    seed(db, "b.small", 5, age_seconds=1)
    claimer = Claimer(db)

    turns = [claimer.types(100, look=number == 0) for number in range(3)]

    assert sum(turn["b.small"] for turn in turns) == 5


def test_the_better_priority_comes_first_also_from_memory(db):
    for priority in range(100):
        seed(db, "a.b", 3, priority=priority)
    claimer = Claimer(db)

    claims = [claimer.claim(10, look=number % 8 == 0) for number in range(31)]

    priorities = [column_of(db, held, "priority") for claim in claims for held in claim]
    assert len(priorities) == 300
    assert priorities == sorted(priorities)


def test_a_type_that_is_disabled_is_not_claimed_from_memory(db):
    seed(db, "a.b", 50)
    seed(db, "a.c", 50)
    claimer = Claimer(db)
    claimer.claim(10, look=True)

    db.execute(
        "insert into workflow_registry (workflow_name, runtime, is_enabled) values ('a.b', 'python', false)"
    )

    assert set(claimer.types(10)) == {"a.c"}


def test_what_is_hidden_cancelled_or_put_off_is_not_claimed_from_memory(db):
    claimer = Claimer(db)
    runs = [submit(db, "a.b") for _ in range(5)]
    claimer.claim(1, look=True)

    db.execute("update workflow_run set deleted_at = now() where id = %s", [runs[1]])
    db.execute("update workflow_run set status = 'cancelled' where id = %s", [runs[2]])
    db.execute("update workflow_run set run_at = now() + interval '1 day' where id = %s", [runs[3]])

    assert [held.id for held in claimer.claim(10)] == [runs[4]]


def test_lanes_that_are_no_lanes_are_refused(db):
    with pytest.raises(Exception, match="malformed"):
        ask(db, statements.exchange("w", [], ["%"], limit=1, lease_seconds=30, lanes="nonsense"))


@pytest.mark.fault("Database and network", "a snapshot is held while runs flow: claims stay as cheap", "P7")
def test_under_a_held_snapshot_a_claim_from_memory_costs_the_same(db, connection):
    db.execute("alter table workflow_run set (autovacuum_enabled = off)")
    holder = connection()
    holder.execute("begin isolation level repeatable read")
    holder.execute("select 1 from workflow_run limit 1")
    seed(db, "a.b", 20_000)
    claimer = Claimer(db, "a.b")
    claimer.claim(50, look=True)
    statement = "select * from claim('w', '{a.b}', 50, 30, 1, %s, false)"

    at_first = blocks_touched(db, statement, claimer.lanes)
    for _ in range(60):
        claimer.claim(250)
    at_last = blocks_touched(db, statement, claimer.lanes)
    everywhere = blocks_touched(db, "select * from claim('w', '{a.b}', 50, 30, 1)")
    holder.execute("rollback")

    assert at_last < 1.5 * at_first
    assert at_last < everywhere / 2  # the snapshot is what costs there
