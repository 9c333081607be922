"""Runs whose workers died: which are suspects, who may claim them, and what their attempts are in the end."""

from __future__ import annotations

import pytest

from builders import (
    Database,
    a_held_run,
    a_type,
    age,
    ask,
    attempt,
    cancel,
    claim,
    claim_many,
    column_of,
    expire,
    finish,
    last_event,
    release,
    reopen,
    retry,
    rewrite,
    submit,
)
from simpleworkflow import statements


def state_of(db: Database, run_id: str) -> tuple[int, int, bool]:
    return tuple(column_of(db, run_id, column) for column in ("attempt", "crashes", "is_suspect"))  # type: ignore[return-value]


def crash(db: Database, worker: str, *run_types: str) -> None:
    """Let ``worker`` claim what is there and die."""
    assert claim_many(db, worker=worker, patterns=run_types)
    expire(db, worker)


def a_suspect(db: Database, **options: object) -> str:
    """Return a run that went down twice with another, which is out of the way."""
    type_ = a_type()
    run_id, other = submit(db, type_, **options), submit(db, type_)
    crash(db, "first", type_)
    crash(db, "second", type_)
    cancel(db, other)
    assert state_of(db, run_id) == (2, 2, True)
    return run_id


def test_a_suspect_that_is_paused_empties_no_worker(db: Database) -> None:
    run_id = a_suspect(db)
    rewrite(db, run_id, "updated_at = now() - interval '1 minute'")
    waiting = "select has_suspect_waiting('{%}', clock_timestamp())"
    assert db.execute(waiting).fetchone() == (True,)

    db.execute("select pause(type) from workflow_run where id = %s", [run_id])

    assert db.execute(waiting).fetchone() == (False,)


def test_the_first_crash_lets_a_run_be_claimed_with_others_as_before(db: Database) -> None:
    type_ = a_type()
    ids = {submit(db, type_) for _ in range(3)}

    crash(db, "dead", type_)

    assert {state_of(db, run_id) for run_id in ids} == {(1, 1, False)}
    assert {held.id for held in claim_many(db, patterns=[type_])} == ids


@pytest.mark.fault(
    "Death, pause, leases", "a run whose worker died twice in a row is given to a worker alone", "P4"
)
def test_the_second_crash_in_a_row_makes_suspects_that_come_one_at_a_time(db: Database) -> None:
    type_ = a_type()
    ids = {submit(db, type_) for _ in range(3)}
    crash(db, "first", type_)
    crash(db, "second", type_)

    claimed = [claim_many(db, worker=f"worker {number}", patterns=["%"]) for number in range(3)]

    assert [len(held) for held in claimed] == [1, 1, 1]
    assert {held[0].id for held in claimed} == ids
    assert claim_many(db, patterns=["%"]) == []


def test_the_last_attempt_is_made_alone_also_after_one_crash(db: Database) -> None:
    type_ = a_type()
    run_id = submit(db, type_, max_attempts=2)

    crash(db, "dead", type_)

    assert state_of(db, run_id) == (1, 0, True)
    assert last_event(db, run_id)[1]["suspect"] is True


def test_a_run_with_one_attempt_is_never_executed_twice(db: Database) -> None:
    type_ = a_type()
    run_id = submit(db, type_, max_attempts=1)

    crash(db, "dead", type_)

    assert column_of(db, run_id, "status") == "failed"


def test_a_run_that_was_the_only_one_keeps_the_attempt_that_its_crash_took(db: Database) -> None:
    type_ = a_type()
    run_id = submit(db, type_)
    crash(db, "dead", type_)
    held = claim(db)
    assert held is not None

    assert finish(db, held)

    assert state_of(db, run_id) == (2, 0, False)


def test_a_lapsed_lease_is_no_crash(db: Database) -> None:
    held = a_held_run(db, max_attempts=2)
    age(db, held, 60)

    expire(db)

    assert state_of(db, held.id) == (1, 0, False)


def test_a_suspect_that_ends_well_gets_back_what_the_crashes_took(db: Database) -> None:
    run_id = a_suspect(db)
    held = claim(db)
    assert held is not None
    assert held.attempt == 3

    assert finish(db, held)

    assert state_of(db, run_id) == (1, 0, False)
    assert column_of(db, run_id, "fencing_token") == 3
    assert ask(db, statements.verify(slack_seconds=5)) == []


def test_a_suspect_that_fails_by_its_own_error_keeps_its_attempts_and_is_no_suspect_any_more(
    db: Database,
) -> None:
    run_id = a_suspect(db, max_attempts=4)
    held = claim(db)
    assert held is not None

    assert retry(db, held)

    assert state_of(db, run_id) == (3, 0, False)


def test_executions_that_end_with_a_crash_never_exceed_max_attempts(db: Database) -> None:
    run_id = a_suspect(db, max_attempts=3)
    assert claim(db, worker="third") is not None

    assert expire(db, "third") == {run_id: "failed"}

    assert column_of(db, run_id, "attempt") == 3


def test_a_released_suspect_stays_one(db: Database) -> None:
    run_id = a_suspect(db)
    held = claim(db)
    assert held is not None

    assert release(db, held)

    assert state_of(db, run_id) == (2, 2, True)


def test_a_reopened_run_is_no_suspect(db: Database) -> None:
    type_ = a_type()
    run_id = submit(db, type_, max_attempts=1)
    crash(db, "dead", type_)

    assert reopen(db, run_id)

    assert state_of(db, run_id) == (1, 0, False)


def test_a_worker_that_holds_something_is_given_no_suspect(db: Database) -> None:
    a_suspect(db)
    other = submit(db)

    got = ask(db, statements.exchange("busy", [], ["%"], limit=10, lease_seconds=30, held=1))

    assert [one.id for one in got.claimed] == [other]


def test_where_all_are_busy_some_are_asked_to_make_room(db: Database) -> None:
    run_id = a_suspect(db)
    submit(db)

    def is_asked() -> bool:
        statement = statements.exchange("busy", [], ["%"], limit=0, lease_seconds=30, held=1)
        assert not ask(db, statement).is_suspect_waiting  # who claims nothing is asked nothing
        claiming = statements.exchange("busy", [], ["%"], limit=1, lease_seconds=30, held=1)
        return bool(ask(db, claiming).is_suspect_waiting)

    assert not any(is_asked() for _ in range(100))  # it has not waited for long
    age(db, run_id, 11)
    assert any(is_asked() for _ in range(400))  # by chance: one in twenty; all of 400 miss once in 10^9
    assert claim(db, worker="idle") is not None
    assert not any(is_asked() for _ in range(100))  # somebody runs one


@pytest.mark.parametrize("disabled", ["exact", "prefix"])
def test_a_suspect_of_a_disabled_type_waits(db: Database, disabled: str) -> None:
    run_id = a_suspect(db)
    type_ = column_of(db, run_id, "type")
    name = type_ if disabled == "exact" else type_[:8] + "%"
    db.execute(
        "insert into workflow_registry (workflow_name, runtime, is_enabled) values (%s, 'python', false)",
        [name],
    )

    assert claim(db) is None


@pytest.mark.parametrize("pattern", ["other.%", "TEST.%", "tes_.%", "test"])
def test_a_suspect_is_claimed_by_its_patterns_only(db: Database, pattern: str) -> None:
    a_suspect(db)

    assert claim(db, pattern=pattern) is None


@pytest.mark.parametrize("change", ["crashes = 1", "is_suspect = true"])
def test_nobody_makes_a_suspect_by_hand(db: Database, change: str) -> None:
    run_id = submit(db)

    assert attempt(db, f"update workflow_run set {change} where id = %s", run_id) == "WF001"
    column, value = change.split(" = ")
    assert attempt(db, f"insert into workflow_run (type, {column}) values ('a.v1', {value})") == "WF001"
