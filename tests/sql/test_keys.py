"""One idempotency key, one run, under any number of racing producers."""

from __future__ import annotations

import threading

import pytest

from builders import Database, a_held_run, a_run, ask, count, events_of, finish, submit, submit_many
from simpleworkflow import statements
from simpleworkflow.model import NewRun
from waits import blocked, in_thread


def new(key: str | None, type_: str = "a.b") -> NewRun:
    return NewRun(type=type_, idempotency_key=key)


@pytest.mark.fault("Concurrency", "fifty producers race on one key", "P9")
@pytest.mark.parametrize("way", ["submit", "submit_many", "plain"])
def test_fifty_racing_producers_with_one_key_make_one_run(db, connection, way):
    connections = [connection() for _ in range(50)]
    start = threading.Barrier(50)
    answers: list[tuple[str | None, bool]] = []

    def produce(conn: Database) -> None:
        start.wait()
        answers.append(one_submission(conn, way))

    threads = [threading.Thread(target=produce, args=(conn,)) for conn in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert count(db, "workflow_run") == 1
    assert count(db, "workflow_event") == 1
    assert [created for _, created in answers].count(True) == 1
    assert len({run_id for run_id, _ in answers if run_id}) == 1


def one_submission(conn: Database, way: str) -> tuple[str | None, bool]:
    if way == "plain":
        row = conn.execute(
            "insert into workflow_run (type, idempotency_key) values ('a.b', 'k')"
            " on conflict (idempotency_key) do nothing returning id::text"
        ).fetchone()
        return (row[0], True) if row else (None, False)
    if way == "submit":
        said = ask(conn, statements.submit_run(new("k")))
    else:
        [said] = submit_many(conn, [new("k")])
    return str(said.id), said.created


@pytest.mark.fault("Concurrency", "the first producer of a key rolls back while the second waits", "P9")
@pytest.mark.parametrize("way", ["submit", "submit_many", "plain"])
def test_when_the_first_producer_rolls_back_the_second_inserts(db, connection, way):
    first, second = connection(), connection()

    first.execute("begin")
    gone, _ = one_submission(first, way)
    waiting = in_thread(lambda: one_submission(second, way))
    blocked(db, second)
    first.execute("rollback")
    run_id, created = waiting.result()

    assert created
    assert run_id != gone
    assert events_of(db, run_id) == ["created"]
    assert count(db, "workflow_event") == 1


@pytest.mark.parametrize("way", ["submit", "submit_many"])
def test_when_the_first_producer_commits_the_second_gets_its_run(db, connection, way):
    first, second = connection(), connection()

    first.execute("begin")
    run_id, _ = one_submission(first, way)
    waiting = in_thread(lambda: one_submission(second, way))
    blocked(db, second)
    first.execute("commit")

    assert waiting.result() == (run_id, False)
    assert count(db, "workflow_event") == 1


def test_a_batch_with_duplicates_and_keys_that_exist_answers_for_each_in_order(db):
    existing = submit(db, "a.b", idempotency_key="old")

    keys = ["x", "old", None, "x", "y", None, "old"]
    said = submit_many(db, [new(key) for key in keys])

    assert [one.created for one in said] == [True, False, True, False, True, True, False]
    assert str(said[1].id) == str(said[6].id) == existing
    assert said[3].id == said[0].id
    assert len({one.id for one in said}) == 5
    assert count(db, "workflow_run") == count(db, "workflow_event") == 5


@pytest.mark.fault("Concurrency", "four batches of the same keys in opposite orders", "P9")
def test_two_batches_with_the_same_keys_in_opposite_order_do_not_deadlock(db, connection):
    keys = [f"k{number}" for number in range(200)]
    start = threading.Barrier(4)
    failures: list[Exception] = []

    def produce(conn: Database, order: list[str]) -> None:
        start.wait()
        try:
            submit_many(conn, [new(key) for key in order])
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=produce, args=(connection(), keys[:: (-1) ** turn])) for turn in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert count(db, "workflow_run") == 200


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_key_lives_as_long_as_its_row(db, status):
    run_id = a_run(db, status=status, idempotency_key="k")

    said = ask(db, statements.submit_run(new("k")))

    assert (str(said.id), said.created) == (run_id, False)


def test_a_hidden_run_keeps_its_key(db):
    run_id = submit(db, idempotency_key="k")
    db.execute("update workflow_run set deleted_at = now() where id = %s", [run_id])

    said = ask(db, statements.submit_run(new("k")))

    assert (str(said.id), said.created) == (run_id, False)


def test_runs_without_a_key_are_all_their_own(db):
    said = submit_many(db, [new(None)] * 3)

    assert len({one.id for one in said}) == 3


def test_keys_differ_by_every_byte(db):
    keys = ["k", "K", "k ", " k", "ä", "a\u0308", "%", "\\", "'", "k\n"]

    said = submit_many(db, [new(key) for key in keys])

    assert all(one.created for one in said)


def test_a_finished_run_frees_nothing(db):
    held = a_held_run(db, idempotency_key="k")
    finish(db, held)

    row = db.execute(
        "insert into workflow_run (type, idempotency_key) values ('a.b', 'k')"
        " on conflict (idempotency_key) do nothing returning id"
    ).fetchone()

    assert row is None
    assert count(db, "workflow_event", "event_type = 'created'") == 1
