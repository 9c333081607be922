"""Bad input is refused where it enters, with one clear line, by every way in."""

from __future__ import annotations

import re

import psycopg
import pytest

from builders import Database, a_run, a_type, column_of, count, row_of

BAD_TYPES = [
    "",
    " ",
    ".",
    "a.",
    ".a",
    "a..b",
    "a b",
    "a.b ",
    "a.b\n",
    "\na",
    "a\tb",
    "a\x01b",
    "a/b",
    "../etc/passwd",
    "a%",
    "%",
    "a'b",
    'a"b',
    "a;drop table workflow_run",
    "a\\b",
    "{schema}",
    "é.b",
    "а.b",  # noqa: RUF001 — the first letter is Cyrillic
    "a\u200bb",
    "a" * 201,
    "a." * 100 + "b",
    "x" * 10_000_000,
]


def refusal(db: Database, statement: str, *values: object) -> tuple[str | None, str]:
    """Execute a statement that should be refused; return its SQLSTATE and its message."""
    try:
        with db.transaction():
            db.execute(statement.encode(), values)
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary or ""
    return None, ""


def is_one_clear_line(message: str) -> bool:
    return "\n" not in message and len(message) < 300 and bool(re.match(r"[a-z_, ]+: ", message))


@pytest.mark.fault("Bad input", "plain SQL: a type that is no dotted name", "P11")
@pytest.mark.parametrize("way", ["plain", "submit", "submit_many"])
@pytest.mark.parametrize("type_", BAD_TYPES, ids=lambda type_: ascii(type_[:20]))
def test_a_type_that_is_no_dotted_name_is_refused(module_db, way, type_):
    before = count(module_db, "workflow_run")

    sqlstate, message = refusal(module_db, INSERTS[way].format(column="priority", value="1"), type_)

    assert sqlstate == "WF002"
    assert message.startswith("type: expected words")
    assert is_one_clear_line(message)
    assert count(module_db, "workflow_run") == before


INSERTS = {
    "plain": "insert into workflow_run (type, {column}) values (%s, {value})",
    "submit": "select submit(%s)",
    "submit_many": "select submit_many(array[%s], '{{\"{{}}\"}}', '{{null}}', '{{1}}', '{{null}}', '{{0}}', '{{3}}')",
}


@pytest.mark.parametrize(
    "type_", ["a", "A-1_b", "billing.invoice.v1", "-", "_", "0", "a" * 200, "null", "select"]
)
def test_any_dotted_name_of_ascii_words_is_a_type(db, type_):
    db.execute("insert into workflow_run (type) values (%s)", [type_])

    assert count(db, "workflow_run", "type = %s", type_) == 1


# column, SQL value, the word that the message begins with
BAD_VALUES = [
    ("idempotency_key", "''", "idempotency_key"),
    ("idempotency_key", "repeat('x', 401)", "idempotency_key"),
    ("idempotency_key", "repeat('€', 134)", "idempotency_key"),
    ("max_attempts", "0", "max_attempts"),
    ("max_attempts", "-1", "max_attempts"),
    ("max_attempts", "1001", "max_attempts"),
    ("max_attempts", "2147483647", "max_attempts"),
    ("max_attempts", "null", "max_attempts"),
    ("run_at", "'infinity'", "run_at"),
    ("run_at", "'-infinity'", "run_at"),
    ("run_at", "'20000-01-01'", "run_at"),
    ("run_at", "'0044-03-15 BC'", "run_at"),
    ("run_at", "null", "run_at"),
    ("created_at", "'infinity'", "created_at"),
    ("created_at", "'20000-01-01'", "created_at"),
    ("updated_at", "'-infinity'", "created_at, updated_at"),
    ("priority", "null", "priority"),
    ("payload", "null", "payload"),
    ("payload", """to_jsonb(repeat('x', 1048575))""", "payload"),
    # Eleven numbers of seven characters each print as 100 kB each.
    ("payload", """('[' || repeat('1e100000,', 10) || '1e100000]')::jsonb""", "payload"),
    ("payload", """('[' || repeat('1e-16000,', 70) || '1]')::jsonb""", "payload"),
    # Printed, these would take 1 GB and more.
    ("payload", """('[' || repeat('1e131071,', 10000) || '1]')::jsonb""", "payload"),
    ("payload", """('{"deep": [[' || repeat('-1e131071,', 9000) || '1]]}')::jsonb""", "payload"),
    ("payload", """('[' || repeat('1e-16383,', 90000) || '1]')::jsonb""", "payload"),
]


@pytest.mark.fault("Bad input", "plain SQL: a value beyond the contract, inserted", "P11")
@pytest.mark.parametrize(("column", "value", "word"), BAD_VALUES)
def test_a_value_beyond_the_contract_is_refused_at_the_insert(module_db, column, value, word):
    type_ = a_type()

    sqlstate, message = refusal(
        module_db, f"insert into workflow_run (type, {column}) values (%s, {value})", type_
    )

    assert sqlstate == "WF002"
    assert message.startswith(word)
    assert is_one_clear_line(message)
    assert count(module_db, "workflow_run", "type = %s", type_) == 0


EDITABLE = ("run_at", "priority", "payload", "deleted_at")


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        *[bad for bad in BAD_VALUES if bad[0] in EDITABLE],
        ("deleted_at", "'infinity'", "created_at"),
        ("deleted_at", "'20000-01-01'", "created_at"),
    ],
)
def test_a_value_beyond_the_contract_is_refused_at_the_update(module_db, column, value, word):
    run_id = a_run(module_db)
    before = row_of(module_db, run_id)

    sqlstate, message = refusal(
        module_db, f"update workflow_run set {column} = {value} where id = %s", run_id
    )

    assert sqlstate == "WF002"
    assert message.startswith(word)
    assert is_one_clear_line(message)
    assert row_of(module_db, run_id) == before


@pytest.mark.fault("Bad input", "plain SQL: time stamps that would break a page", "P11")
def test_an_update_cannot_change_time_stamps_that_would_break_a_page(module_db):
    run_id = a_run(module_db)

    module_db.execute("update workflow_run set priority = 3, updated_at = 'infinity' where id = %s", [run_id])

    assert column_of(module_db, run_id, "isfinite(updated_at)")


@pytest.mark.fault("Bad input", "a SQL function with arguments that make no sense", "P11")
@pytest.mark.parametrize(
    "call",
    [
        "submit('a.b', null)",
        "submit(null)",
        "submit('a.b', '{}', '')",
        "submit('a.b', p_max_attempts => 0)",
        "submit('a.b', p_run_at => 'infinity')",
        "submit('a.b', p_delay_seconds => 'NaN')",
        "submit('a.b', p_delay_seconds => 'infinity')",
        "submit('a.b', p_delay_seconds => 1e300)",
        "submit('a.b', p_delay_seconds => -1e300)",
        "submit_many('{a,b}', '{1}', '{}', '{}', '{}', '{}', '{}')",
        "submit_many('{a}', '{1,2}', '{}', '{}', '{}', '{}', '{}')",
        "submit_many('{a,b}', null, '{}', '{}', '{}', '{}', '{}')",
        "submit_many('{a,null}', '{1,2}', '{}', '{}', '{}', '{}', '{}')",
        "submit_many('{a}', '{1}', '{}', '{}', '{}', '{NaN}', '{}')",
        "submit_many('{a}', '{1}', '{}', '{}', '{infinity}', '{}', '{}')",
        "claim(null, '{%%}')",
        "claim('', '{%%}')",
        "claim('w', '{%%}', 1, 0)",
        "heartbeat('w', '{}', '{}', 0)",
        "finish('w', '{}', '{}', '{done}')",
        "reopen('{}', 0)",
        "reopen('{}', null)",
        "reopen('{}', 1001)",
    ],
)
def test_a_function_refuses_arguments_that_make_no_sense(db, call):
    sqlstate, message = refusal(db, f"select {call}")

    assert sqlstate == "WF002"
    assert is_one_clear_line(message)
    assert count(db, "workflow_run") == 0


@pytest.mark.fault("Bad input", "plain SQL: odd but valid JSON", "P11")
@pytest.mark.parametrize(
    "payload",
    [
        "null",
        "0",
        '""',
        "[]",
        "true",
        '{"a": {"b": [1, 2, {"c": null}]}}',
        '{"__proto__": 1}',
        '{"a": 1, "a": 2}',
        "1e400",
    ],
)
def test_any_json_value_is_a_payload(db, payload):
    run_id = db.execute(
        "insert into workflow_run (type, payload) values ('a.b', %s::jsonb) returning id::text", [payload]
    ).fetchone()[0]

    assert db.execute(
        "select payload = %s::jsonb from workflow_run where id = %s", [payload, run_id]
    ).fetchone()[0]


def test_a_payload_of_exactly_one_megabyte_is_kept(db):
    db.execute("insert into workflow_run (type, payload) values ('a.b', to_jsonb(repeat('x', 1048574)))")

    assert count(db, "workflow_run", "octet_length(payload::text) = 1048576") == 1


@pytest.mark.parametrize(
    "payload", ["repeat('1e20000,', 52)", "repeat('1e-1000,', 1000)", "repeat('12345678,', 100000)"]
)
def test_many_long_numbers_are_kept_as_long_as_they_print_within_a_megabyte(db, payload):
    db.execute(f"insert into workflow_run (type, payload) values ('a.b', ('[' || {payload} || '1]')::jsonb)")

    assert count(db, "workflow_run", "octet_length(payload::text) between 900000 and 1048576") == 1


def test_a_key_of_400_bytes_is_kept(db):
    db.execute("insert into workflow_run (type, idempotency_key) values ('a.b', repeat('ä', 200))")

    assert count(db, "workflow_run", "octet_length(idempotency_key) = 400") == 1


def test_the_ends_of_what_numbers_hold_are_accepted(db):
    db.execute(
        "insert into workflow_run (type, priority, max_attempts, run_at) values"
        " ('a.b', 2147483647, 1000, '9999-12-29'), ('a.b', -2147483648, 1, '0001-01-03')"
    )

    assert count(db, "workflow_run") == 2


@pytest.mark.fault("Bad input", "plain SQL: one bad row in a batch of 100", "P1, P11")
def test_one_bad_row_in_a_batch_refuses_the_batch_and_names_the_reason(db):
    sqlstate, message = refusal(
        db,
        "select submit_many(array(select case when n = 77 then 'b d' else 'a.b' end from generate_series(1, 100) n),"
        " array_fill('{}'::jsonb, array[100]), null, null, null, null, null)",
    )

    assert (sqlstate, "'b d'" in message) == ("WF002", True)
    assert count(db, "workflow_run") == 0


@pytest.mark.fault("Bad input", "plain SQL: a batch of 100,000 in one statement", "P1, P6")
def test_a_batch_of_100_000_is_one_statement(db):
    db.execute(
        "select submit_many(array_fill('a.b'::text, array[100000]), array_fill('{}'::jsonb, array[100000]),"
        " null, null, null, null, null)"
    )

    assert count(db, "workflow_run") == count(db, "workflow_event") == 100_000


def test_an_id_that_exists_is_refused_and_leaves_nothing(db):
    run_id = a_run(db)

    sqlstate, _ = refusal(db, "insert into workflow_run (id, type) values (%s, 'a.b')", run_id)

    assert sqlstate == "23505"
    assert count(db, "workflow_event") == 1


def test_ids_that_the_database_makes_are_ordered_by_time_and_of_version_seven(db):
    ids = [a_run(db) for _ in range(50)]

    milliseconds = [run_id[:13] for run_id in ids]

    assert all(run_id[14] == "7" and run_id[19] in "89ab" for run_id in ids)
    assert milliseconds == sorted(milliseconds)


def test_a_bad_progress_note_is_refused(db):
    sqlstate, message = refusal(
        db, "select progress('w', '00000000-0000-7000-8000-000000000000', 1, to_jsonb(repeat('x', 70000)))"
    )

    assert sqlstate == "WF002"
    assert is_one_clear_line(message)
