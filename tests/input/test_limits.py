"""Every limit, reached and passed by one, by every way in; docs/reference/limits.md is the page of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import (
    a_held_run,
    a_run,
    a_type,
    ask,
    claim,
    column_of,
    count,
    events_of,
    last_event,
    status_of,
    submit,
)
from input.refusals import is_one_clear_line, refusal
from simpleworkflow import InvalidInput, NewRun, model, statements

SECTION = "Bad input"


def nested(levels: int, innermost: str = "1") -> str:
    """Return JSON of so many arrays in each other."""
    return "[" * levels + innermost + "]" * levels


@dataclass(frozen=True)
class Limit:
    """A column, its last good value and the first bad one, each as Python, and how the refusal begins."""

    column: str
    at: Any
    beyond: Any
    said: str
    at_sql: Any = None
    beyond_sql: Any = None
    sqlstate: str = "WF002"


KIB = "x" * 1022
LIMITS = {
    "type: 200 characters": Limit("type", "a" * 200, "a" * 201, "type: expected words"),
    "payload: 1 MB": Limit(
        "payload", "x" * 1_048_574, "x" * 1_048_575, "payload: expected at most 1048576 bytes"
    ),
    "payload: 1 MB of two-byte letters": Limit(
        "payload", "é" * 524_287, "é" * 524_288, "payload: expected at most 1048576 bytes"
    ),
    "payload: 100 levels": Limit("payload", json.loads(nested(100)), json.loads(nested(101)), "payload"),
    "payload: 100 levels, the last one empty": Limit(
        "payload", json.loads(nested(100, "")), json.loads(nested(101, "")), "payload"
    ),
    "payload: 100 levels of objects": Limit(
        "payload",
        json.loads('{"a":' * 100 + "1" + "}" * 100),
        json.loads('{"a":' * 101 + "1" + "}" * 101),
        "payload",
    ),
    "key: 400 bytes": Limit(
        "idempotency_key", "k" * 400, "k" * 401, "idempotency_key: expected 1 to 400 bytes"
    ),
    "key: 400 bytes of two-byte letters": Limit(
        "idempotency_key", "é" * 200, "é" * 201, "idempotency_key: expected 1 to 400 bytes"
    ),
    "key: not empty": Limit("idempotency_key", "k", "", "idempotency_key: expected 1 to 400 bytes"),
    "priority: the highest": Limit(
        "priority", 2**31 - 1, 2**31, "priority: expected an integer", sqlstate="22003"
    ),
    "priority: the lowest": Limit(
        "priority", -(2**31), -(2**31) - 1, "priority: expected an integer", sqlstate="22003"
    ),
    "max_attempts: at least 1": Limit("max_attempts", 1, 0, "max_attempts: expected"),
    "max_attempts: at most 1000": Limit("max_attempts", 1000, 1001, "max_attempts: expected"),
    "run_at: the last": Limit(
        "run_at",
        datetime(9999, 12, 30, tzinfo=UTC),
        datetime(9999, 12, 30, 0, 0, 1, tzinfo=UTC),
        "run_at: expected a",
    ),
    "run_at: the first": Limit(
        "run_at", datetime(1, 1, 2, tzinfo=UTC), datetime(1, 1, 1, 23, 59, tzinfo=UTC), "run_at: expected a"
    ),
}
DELAY_MAX = 3_155_760_000


@pytest.mark.fault(SECTION, "a limit, reached and passed by one, through plain SQL", "P11")
@pytest.mark.parametrize("name", LIMITS)
def test_plain_sql_reaches_each_limit_and_is_refused_beyond(module_db, name):
    limit, type_ = LIMITS[name], a_type()
    columns = "(type)" if limit.column == "type" else f"(type, {limit.column})"
    values = (
        "(%s)"
        if limit.column == "type"
        else "(%s, %s::text::jsonb)"
        if limit.column == "payload"
        else "(%s, %s)"
    )
    insert = f"insert into workflow_run {columns} values {values}"

    def parameters(value: Any) -> list[Any]:
        if limit.column == "payload":
            return [type_, json.dumps(value, ensure_ascii=False)]
        if limit.column == "run_at":
            return [type_, value.isoformat()]
        return [value] if limit.column == "type" else [type_, value]

    module_db.execute(insert.encode(), parameters(limit.at))
    before = count(module_db, "workflow_run")
    sqlstate, message = refusal(module_db, insert, *parameters(limit.beyond))

    assert sqlstate == limit.sqlstate
    assert is_one_clear_line(message)
    assert message.startswith(limit.column) or sqlstate == "22003"
    assert count(module_db, "workflow_run") == before


@pytest.mark.fault(SECTION, "a limit, reached and passed by one, through a client", "P11")
@pytest.mark.parametrize("name", LIMITS)
def test_a_client_reaches_each_limit_and_is_refused_beyond(client, name):
    limit = LIMITS[name]

    def arguments(value: Any) -> dict[str, Any]:
        given = {"type_": "limits.v1"}
        given["type_" if limit.column == "type" else limit.column] = value
        return given

    def submit_it(value: Any) -> Any:
        given = arguments(value)
        return client.submit(given.pop("type_"), given.pop("payload", None), **given)

    handle = submit_it(limit.at)
    with pytest.raises(InvalidInput) as refused:
        submit_it(limit.beyond)

    assert client.get(handle.id).status == "pending"
    assert str(refused.value).startswith(limit.said)
    assert is_one_clear_line(str(refused.value))


def _as_arguments(limit: Limit, value: Any, folder: Path) -> list[str]:
    match limit.column:
        case "type":
            return ["submit", value]
        case "payload":
            # A single argument cannot be that large.
            (folder / "payload.json").write_text(json.dumps(value, ensure_ascii=False))
            return ["submit", "limits.v1", f"@{folder / 'payload.json'}"]
        case "run_at":
            return ["submit", "limits.v1", "--run-at", value.isoformat()]
    option = {"idempotency_key": "--key", "priority": "--priority", "max_attempts": "--max-attempts"}[
        limit.column
    ]
    return ["submit", "limits.v1", option, str(value)]


@pytest.mark.fault(SECTION, "a limit, reached and passed by one, through wf submit", "P11")
@pytest.mark.parametrize("name", LIMITS)
def test_the_command_reaches_each_limit_and_is_refused_beyond(wf, db, tmp_path, name):
    limit = LIMITS[name]

    reached = wf(*_as_arguments(limit, limit.at, tmp_path))
    passed = wf(*_as_arguments(limit, limit.beyond, tmp_path))

    assert reached.code == 0, reached.err
    assert (passed.code, passed.out) == (2, "")
    assert passed.err.startswith("wf: error: ")
    assert passed.err.count("\n") == 1
    assert count(db, "workflow_run") == 1
    for command in (["run", "list"], ["run", "show", reached.out.strip()]):
        assert wf(*command).code == 0


@pytest.mark.fault(SECTION, "a delay of a hundred years and one second more", "P11")
def test_a_delay_reaches_a_hundred_years_by_every_way_in(wf, client, db):
    client.submit("delay.v1", delay=DELAY_MAX)
    db.execute("select submit('delay.v1', p_delay_seconds => %s)", [DELAY_MAX])
    assert wf("submit", "delay.v1", "--delay", f"{DELAY_MAX}s").code == 0

    for beyond in (DELAY_MAX + 1, timedelta(seconds=DELAY_MAX + 1), -1, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match=r"^delay: expected seconds from 0 to 3155760000, got "):
            client.submit("delay.v1", delay=beyond)
    sqlstate, message = refusal(db, "select submit('delay.v1', p_delay_seconds => %s)", DELAY_MAX + 1)
    answer = wf("submit", "delay.v1", "--delay", f"{DELAY_MAX + 1}s")

    assert (sqlstate, message) == ("WF002", "delay_seconds: expected 0 to 3155760000, which is 100 years")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert count(db, "workflow_run") == 3


@pytest.mark.fault(SECTION, "a delay that leads beyond the year 9999", "P11")
def test_a_delay_after_a_time_near_the_end_is_refused(client):
    with pytest.raises(InvalidInput, match="run_at: expected a finite time before the year 10000"):
        client.submit("delay.v1", run_at=datetime(9999, 12, 29, tzinfo=UTC), delay=10 * 86_400)


@pytest.mark.fault(SECTION, "an integer of 4300 digits and one of 4301", "P11")
def test_an_integer_reaches_what_python_reads(client, wf, tmp_path):
    handle = client.submit("digits.v1", 10**4299)
    with pytest.raises(InvalidInput, match="expected an integer of at most 4300 digits"):
        client.submit("digits.v1", 10**4300)
    (tmp_path / "n.json").write_text("1" + "0" * 4300)
    answer = wf("submit", "digits.v1", f"@{tmp_path / 'n.json'}")

    assert client.get(handle.id).payload == 10**4299
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "an integer of more than 4300 digits" in answer.err


# ── attempts ───────────────────────────────────────────────────────────────────────────────────────

RESULTS = {
    "1 MB": ("to_jsonb(repeat('x', 1048574))", "to_jsonb(repeat('x', 1048575))"),
    "100 levels": (f"'{nested(100)}'", f"'{nested(101)}'"),
    "numbers that print long": ("'[1e131071, 1]'", f"'[{'1e131071,' * 20}1]'"),
    "very many numbers that print long": ("'[1e400]'", "('[' || repeat('1e131071,', 10000) || '1]')::jsonb"),
}


@pytest.mark.fault(SECTION, "a result beyond a limit, through the SQL function", "P2, P11")
@pytest.mark.parametrize("name", RESULTS)
def test_finish_stores_a_result_at_the_limit_and_refuses_one_beyond(module_db, name):
    at, beyond = RESULTS[name]
    finish = "select finish(%s, array[%s]::uuid[], array[%s]::bigint[], '{{succeeded}}', array[{}]::jsonb[])"
    held = a_held_run(module_db, type=a_type())
    values = (held.worker, held.id, held.fencing_token)

    sqlstate, message = refusal(module_db, finish.format(beyond).replace("%%", "%"), *values)

    assert sqlstate == "WF002"
    assert message.startswith("p_results: expected at most 1048576 bytes as text and 100 levels each")
    assert status_of(module_db, held.id) == "leased"
    module_db.execute(finish.format(at).encode(), values)
    assert status_of(module_db, held.id) == "succeeded"


NOTES = {
    "64 kB": ("to_jsonb(repeat('x', 65534))", "to_jsonb(repeat('x', 65535))"),
    "100 levels": (f"'{nested(100)}'", f"'{nested(101)}'"),
    "numbers that print long": ("'1e60000'", "('[' || repeat('1e131071,', 6000) || '1]')::jsonb"),
}


@pytest.mark.fault(SECTION, "a progress note beyond a limit", "P6, P11")
@pytest.mark.parametrize("name", NOTES)
def test_a_progress_note_reaches_its_limit_and_is_refused_beyond(module_db, name):
    at, beyond = NOTES[name]
    held = a_held_run(module_db, type=a_type())
    values = (held.worker, held.id, held.fencing_token)

    sqlstate, message = refusal(module_db, f"select progress(%s, %s, %s, {beyond})", *values)
    module_db.execute(f"select progress(%s, %s, %s, {at})".encode(), values)

    assert (sqlstate, message[:30]) == ("WF002", "p_progress: expected at most 6")
    assert events_of(module_db, held)[-1] == "progress"


@pytest.mark.fault(SECTION, "an error of exactly 64 kB, one byte more, and 100 MB", "P11")
def test_an_error_is_kept_whole_up_to_its_limit_and_cut_beyond(module_db):
    finish = (
        "select finish(%s, array[%s]::uuid[], array[%s]::bigint[], '{{failed}}', null,"
        " array['head' || repeat('{letter}', {number}) || 'tail'])"
    )
    kept = {}
    for letter, number in (("x", 65_528), ("x", 65_529), ("é", 32_765), ("x", 100_000_000), ("𝄞", 20_000)):
        held = a_held_run(module_db, type=a_type())
        statement = finish.format(letter=letter, number=number).replace("{{", "{").replace("}}", "}")
        module_db.execute(statement.encode(), [held.worker, held.id, held.fencing_token])
        error = column_of(module_db, held, "last_error")
        assert error.startswith("head")
        assert error.endswith("tail")
        kept[letter, number] = len(error.encode())

    assert kept.pop(("x", 65_528)) == 65_536
    assert all(size < 65_536 for size in kept.values())


@pytest.mark.fault(SECTION, "a lease or a heartbeat of no time, of a year, of more", "P3, P11")
@pytest.mark.parametrize("seconds", ["0", "-1", "31536001", "'NaN'", "'infinity'", "null"])
def test_a_lease_lasts_more_than_nothing_and_at_most_a_year(module_db, seconds):
    held = a_held_run(module_db, type=a_type())
    before = column_of(module_db, held, "lease_until")
    call = "select heartbeat(%s, array[%s]::uuid[], array[%s]::bigint[], {})"
    values = (held.worker, held.id, held.fencing_token)

    refused = [
        refusal(module_db, call.format(seconds), *values),
        refusal(module_db, f"select claim('w', '{{%%}}', 1, {seconds})"),
    ]

    assert [sqlstate for sqlstate, _ in refused] == ["WF002", "WF002"]
    assert all("expected more than 0 and at most a year" in message for _, message in refused)
    assert column_of(module_db, held, "lease_until") == before
    module_db.execute(call.format(31_536_000).encode(), values)
    assert column_of(module_db, held, "lease_until - now() > interval '364 days'")


@pytest.mark.fault(SECTION, "a worker's name of 400 bytes and of one more", "P11")
def test_a_workers_name_fits_its_index(module_db):
    type_ = a_type()
    run_id = submit(module_db, type_)

    for name, size in (("w" * 401, 401), ("w" * 10_000_000, 10_000_000), ("", 0)):
        sqlstate, message = refusal(module_db, "select claim(%s, array[%s])", name, type_)
        assert (sqlstate, message) == ("WF002", f"p_worker: expected a name of 1 to 400 bytes, got {size}")

    assert claim(module_db, worker="w" * 400, pattern=type_).id == run_id


RETRY = (
    "select finish(%s, array[%s]::uuid[], array[%s]::bigint[], '{{pending}}', null, '{{no}}',"
    " array[{seconds}]::float8[])"
)


@pytest.mark.fault(SECTION, "a back-off that overflows", "P4, P11")
@pytest.mark.parametrize("seconds", ["1e308", "'infinity'", "31536001"])
def test_a_retry_waits_at_most_a_year(module_db, seconds):
    held = a_held_run(module_db, type=a_type())

    module_db.execute(RETRY.format(seconds=seconds).encode(), [held.worker, held.id, held.fencing_token])

    assert column_of(module_db, held, "round(extract(epoch from run_at - updated_at))") == 31_536_000


@pytest.mark.fault(SECTION, "a back-off below nothing, or no number", "P4, P11")
@pytest.mark.parametrize(
    ("seconds", "least", "most"), [("-1e308", 0, 0), ("'-infinity'", 0, 0), ("'NaN'", 54, 66)]
)
def test_a_retry_never_waits_less_than_nothing(module_db, seconds, least, most):
    held = a_held_run(module_db, type=a_type())

    module_db.execute(RETRY.format(seconds=seconds).encode(), [held.worker, held.id, held.fencing_token])

    assert least <= column_of(module_db, held, "round(extract(epoch from run_at - updated_at))") <= most


# ── calls ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "one row more than a call takes", "P11")
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            """submit_many(array_fill('a.b'::text, array[100001]), array_fill('{}'::jsonb, array[100001]),
                           null, null, null, null, null)""",
            "p_types",
        ),
        ("cancel(array_fill('00000000-0000-7000-8000-000000000000'::uuid, array[100001]))", "p_ids"),
        ("reopen(array_fill('00000000-0000-7000-8000-000000000000'::uuid, array[100001]))", "p_ids"),
        ("claim('w', '{%%}', 100001)", "p_limit"),
        ("claim('w', '{%%}', 2147483647)", "p_limit"),
        ("claim('w', '{%%}', null)", "p_limit"),
    ],
)
def test_a_call_takes_at_most_a_hundred_thousand(db, call, name):
    a_run(db)

    sqlstate, message = refusal(db, f"select * from {call}")

    assert sqlstate == "WF002"
    assert message.startswith(f"{name}: expected at most 100000")
    assert count(db, "workflow_run", "status = 'pending'") == count(db, "workflow_run") == 1


def test_a_call_of_a_hundred_thousand_ids_is_answered(db):
    run_id = a_run(db)

    rows = db.execute(
        "select * from cancel(array_fill('00000000-0000-7000-8000-000000000000'::uuid, array[99999]) || %s::uuid)",
        [run_id],
    ).fetchall()

    assert [(str(row[0]), row[1]) for row in rows] == [(run_id, True)]


@pytest.mark.fault(SECTION, "a reason of a megabyte", "P6, P11")
def test_a_reason_is_cut(client, db, wf):
    by_client, by_sql, by_command = a_run(db), a_run(db), a_run(db)

    client.cancel(by_client, reason="x" * 1_000_000)
    db.execute("select cancel(array[%s]::uuid[], repeat('x', 1000000))", [by_sql])
    wf("run", "cancel", by_command, "--reason", "x" * 100_000)

    for run_id in (by_client, by_sql, by_command):
        assert 7_000 < len(last_event(db, run_id)[1]["reason"]) <= 8_000


@pytest.mark.fault(SECTION, "patterns that are none", "P11")
@pytest.mark.parametrize(
    "pattern", ["", "a b", "a%b", "%%", "a" * 201, "a.b\n", "é", "'; drop table workflow_run", "\x00"]
)
def test_a_pattern_that_is_none_is_refused_and_in_sql_matches_nothing(client, db, wf, pattern):
    run_id = a_run(db)

    with pytest.raises(InvalidInput, match=r"^pattern: expected a type, or a prefix that ends in %, got "):
        client.list(pattern=pattern)
    answer = wf("run", "list", "--type", pattern)
    if "\x00" not in pattern:
        claimed = ask(db, statements.exchange("w", [], [pattern], limit=1, lease_seconds=30)).claimed
        assert claimed == [] or pattern == "%%"

    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert status_of(db, run_id) in ("pending", "leased" if pattern == "%%" else "pending")


@pytest.mark.fault(SECTION, "a page of no runs, and of too many", "P11")
@pytest.mark.parametrize("limit", [0, -1, 1001, 10**30, 1.5, True, "10", None])
def test_a_page_has_1_to_1000_runs(client, limit):
    with pytest.raises(InvalidInput, match=r"^limit: expected an integer from 1 to 1000, got "):
        client.list(limit=limit)
    assert client.list(limit=1000).runs == []


# ── the page ───────────────────────────────────────────────────────────────────────────────────────


def test_the_page_of_limits_has_the_numbers_of_the_code():
    page = (Path(__file__).resolve().parents[2] / "docs/reference/limits.md").read_text()
    numbers = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", page)}

    said = {name: value for name, value in vars(model).items() if re.search(r"_(MAX|MIN)$", name)}
    assert {name: value for name, value in said.items() if abs(value) not in numbers} == {}


def test_a_new_run_is_checked_where_it_is_made():
    with pytest.raises(InvalidInput, match=r"^type: expected words"):
        NewRun(type="a b")
