"""How attempts end: back-off, budgets, limits, and batches in which something is wrong."""

from __future__ import annotations

import pytest

from builders import (
    Database,
    a_held_run,
    a_type,
    ask,
    attempt,
    claim,
    claim_many,
    column_of,
    count,
    events_of,
    finish,
    last_event,
    retry,
    rewrite,
    status_of,
    submit,
)
from simpleworkflow import statements

DUE_IN = "extract(epoch from run_at - updated_at)::double precision"


# ── back-off ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 60), (2, 240), (3, 540), (10, 6000), (18, 19440)])
def test_the_default_back_off_is_the_square_of_the_attempt_in_minutes_within_a_tenth(db, attempts, seconds):
    held = a_held_run(db, max_attempts=1000)
    rewrite(db, held.id, f"attempt = {attempts}")

    retry(db, held, delay_seconds=None)

    assert column_of(db, held, DUE_IN) == pytest.approx(seconds, rel=0.1)
    assert last_event(db, held)[0] == "retried"


def test_the_default_back_off_differs_from_run_to_run(db):
    held = [a_held_run(db) for _ in range(30)]

    for one in held:
        retry(db, one, delay_seconds=None)
    waits = [column_of(db, one, DUE_IN) for one in held]

    assert all(54 <= wait <= 66 for wait in waits)
    assert max(waits) - min(waits) > 1


@pytest.mark.parametrize("attempts", [21, 100, 999])
def test_the_default_back_off_never_exceeds_six_hours(db, attempts):
    held = a_held_run(db, max_attempts=1000)
    rewrite(db, held.id, f"attempt = {attempts}")

    retry(db, held, delay_seconds=None)

    assert column_of(db, held, DUE_IN) == 21600


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        (-5, 0),
        (float("-inf"), 0),
        (1e300, 31536000),
        (float("inf"), 31536000),
        (float("nan"), 60),
    ],
)
def test_any_delay_a_handler_names_becomes_one_that_a_table_can_hold(db, delay, seconds):
    held = a_held_run(db)

    retry(db, held, delay_seconds=delay)

    assert column_of(db, held, DUE_IN) == pytest.approx(seconds, rel=0.1)


def test_a_retry_says_when_and_why(db):
    held = a_held_run(db)

    retry(db, held, delay_seconds=100, error="the printer is out of paper")

    kind, data = last_event(db, held)
    assert (kind, data["error"], data["token"]) == ("retried", "the printer is out of paper", 1)
    assert column_of(db, held, f"run_at = '{data['run_at']}'")


def test_a_retry_without_an_attempt_left_fails(db):
    held = a_held_run(db, max_attempts=2)
    retry(db, held)
    again = claim(db, pattern=held.type)

    retry(db, again, error="still no luck")

    assert status_of(db, held.id) == "failed"
    assert events_of(db, held) == ["created", "leased", "retried", "leased", "failed"]
    assert (
        column_of(db, held, "(attempt, last_error, finished_at is not null)::text") == '(2,"still no luck",t)'
    )
    assert claim(db, pattern=held.type) is None


# ── results and errors ─────────────────────────────────────────────────────────────────────────────


def test_a_result_of_exactly_one_megabyte_is_kept(db):
    held = a_held_run(db)

    finish(db, held, result="x" * (1048576 - 2))

    assert column_of(db, held, "octet_length(result::text)") == 1048576


@pytest.mark.parametrize(
    "result", ['"' + "x" * (1048576 - 1) + '"', "[" + ", ".join(["1e100000"] * 11) + "]"]
)
def test_a_result_beyond_one_megabyte_as_text_is_refused_and_the_run_stays_held(db, result):
    held = a_held_run(db)

    error = attempt(
        db, "select finish('worker', %s::uuid[], '{1}', '{succeeded}', array[%s::jsonb])", [held.id], result
    )

    assert error == "WF002"
    assert status_of(db, held.id) == "leased"
    assert finish(db, held, status="failed", error="the result is too large")


@pytest.mark.parametrize("character", ["x", "ä", "€", "😀"])
@pytest.mark.parametrize("length", [16_000, 16_384, 21_845, 32_768, 65_536, 65_537, 1_000_000])
def test_an_error_is_bounded_to_64_kilobytes_with_its_head_and_its_tail(module_db, character, length):
    held = a_held_run(module_db)
    text = "HEAD" + character * (length - 8) + "TAIL"

    finish(module_db, held, status="failed", error=text)

    kept = column_of(module_db, held, "last_error")
    assert len(kept.encode()) <= 65536
    assert kept.startswith("HEAD" + character)
    assert kept.endswith(character + "TAIL")
    assert kept == text or "... left out ..." in kept
    assert (kept == text) == (len(text.encode()) <= 65536)
    assert last_event(module_db, held)[1]["error"] == kept


def test_a_success_keeps_its_result_and_the_error_of_the_attempt_before(db):
    held = a_held_run(db)
    retry(db, held, error="first")
    again = claim(db, pattern=held.type)

    finish(db, again, result={"pages": 3})

    assert column_of(db, held, "result") == {"pages": 3}
    assert column_of(db, held, "last_error") == "first"


# ── batches ────────────────────────────────────────────────────────────────────────────────────────


def test_one_foreign_token_in_a_batch_refuses_that_run_alone(db):
    held = [a_held_run(db) for _ in range(5)]
    done = [statements.Finished(one.id, 1, "succeeded") for one in held]
    done[2] = done[2]._replace(fencing_token=2)

    accepted = ask(db, statements.finish_runs("worker", done))

    assert accepted == {one.id for one in held} - {held[2].id}
    assert [status_of(db, one.id) for one in held].count("succeeded") == 4
    assert status_of(db, held[2].id) == "leased"
    assert count(db, "workflow_event", "event_type = 'succeeded'") == 4


def test_each_event_of_a_batch_says_its_own_attempt_and_token(db):
    type_ = a_type()
    numbers = {(1, 1), (1, 5), (4, 1), (4, 5)}
    for attempt_, token in sorted(numbers):
        rewrite(
            db, submit(db, type_, max_attempts=9), f"attempt = {attempt_ - 1}, fencing_token = {token - 1}"
        )

    held = claim_many(db, patterns=[type_], limit=4)
    ask(
        db,
        statements.finish_runs(
            "worker", [statements.Finished(one.id, one.fencing_token, "succeeded") for one in held]
        ),
    )

    for event in ("leased", "succeeded"):
        said = db.execute(
            "select run.id, data, run.attempt, run.fencing_token from workflow_run as run"
            " join workflow_event on workflow_id = run.id where event_type = %s",
            [event],
        ).fetchall()
        assert {(attempt_, token) for _, _, attempt_, token in said} == numbers
        assert all(
            data == {"worker": "worker", "attempt": attempt_, "token": token}
            for _, data, attempt_, token in said
        )


def test_a_run_twice_in_one_batch_has_one_outcome_and_one_event(db):
    held = a_held_run(db)
    done = [
        statements.Finished(held.id, 1, "succeeded", '"first"'),
        statements.Finished(held.id, 1, "succeeded", '"second"'),
        statements.Finished(held.id, 9, "failed", None, "from a zombie"),
    ]

    accepted = ask(db, statements.finish_runs("worker", done))

    assert accepted == {held.id}
    assert column_of(db, held, "result") in ("first", "second")
    assert column_of(db, held, "last_error") is None
    assert events_of(db, held) == ["created", "leased", "succeeded"]


def test_a_batch_may_end_its_runs_in_different_ways(db):
    done = [a_held_run(db) for _ in range(4)]
    last = a_held_run(db, max_attempts=1)
    finished = [
        statements.Finished(done[0].id, 1, "succeeded", "[1]"),
        statements.Finished(done[1].id, 1, "failed", None, "no"),
        statements.Finished(done[2].id, 1, "pending", None, "again", 5.0),
        statements.Finished(done[3].id, 1, "pending", None, "again"),
        statements.Finished(last.id, 1, "pending", None, "again"),
    ]

    ask(db, statements.finish_runs("worker", finished))

    assert [last_event(db, one)[0] for one in [*done, last]] == [
        "succeeded",
        "failed",
        "retried",
        "retried",
        "failed",
    ]
    assert column_of(db, done[2], DUE_IN) == 5
    assert column_of(db, done[3], DUE_IN) == pytest.approx(60, rel=0.1)


def test_a_batch_of_thousands_is_finished_in_one_statement(db):
    db.execute("insert into workflow_run (type) select 'a.b' from generate_series(1, 5000)")
    rows = db.execute("select id::text, fencing_token from claim('worker', '{a.b}', 5000)").fetchall()

    accepted = ask(
        db, statements.finish_runs("worker", [statements.Finished(*row, "succeeded") for row in rows])
    )

    assert len(accepted) == 5000
    assert count(db, "workflow_event", "event_type = 'succeeded'") == 5000


@pytest.mark.parametrize(
    "arguments",
    [
        "'worker', '{id}', '{1}', '{leased}'",
        "'worker', '{id}', '{1}', '{cancelled}'",
        "'worker', '{id}', '{1}', '{SUCCEEDED}'",
        "'worker', '{id}', '{1}', '{null}'",
        "'worker', '{id}', '{1}', '{}'",
        "'worker', '{id}', '{1}', null",
        "'worker', '{id}', null, '{succeeded}'",
        "'worker', '{id}', '{1,2}', '{succeeded}'",
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_whole(db, arguments):
    held = a_held_run(db)

    error = attempt(db, f"select finish({arguments})".replace("{id}", f"{{{held.id}}}"))

    assert error == "WF002"
    assert status_of(db, held.id) == "leased"


def test_an_empty_batch_is_nothing(db: Database):
    assert ask(db, statements.finish_runs("worker", [])) == set()
    assert ask(db, statements.heartbeat_runs("worker", [], seconds=30)) == {}
    assert ask(db, statements.release_runs("worker", [])) == set()
