"""``wf`` with hostile arguments, streams and rows: one line and an exit code, or a page that obeys nobody."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from builders import a_held_run, a_run, a_type, count, rewrite
from cli.programs import WF
from input.refusals import is_one_clear_line, refusal

SECTION = "Bad input"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\u009b31m\r\n\tend"


def call(arguments: list[bytes], url: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run ``wf`` with arguments of bytes."""
    return subprocess.run(
        [os.fsencode(WF), *arguments],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def is_quiet(text: str) -> bool:
    """Return whether nothing in a text is obeyed by a terminal."""
    return all(character == "\n" or character.isprintable() for character in text)


@pytest.mark.fault(SECTION, "wf: an argument that is no UTF-8", "P11")
@pytest.mark.parametrize(
    "arguments",
    [
        [b"submit", b"a.\xff"],
        [b"submit", b"a.b", b'{"a": "\xff"}'],
        [b"submit", b"a.b", b"@\xff"],
        [b"submit", b"a.b", b"--key", b"\xff"],
        [b"run", b"show", b"\xff"],
        [b"run", b"list", b"--type", b"\xff"],
        [b"--database-url", b"\xff", b"config"],
        [b"\xff"],
    ],
    ids=["type", "payload", "file", "key", "id", "pattern", "url", "command"],
)
def test_an_argument_that_is_no_text_is_one_line(database_url, arguments):
    ended = call(arguments, database_url)

    assert ended.returncode == 2
    assert ended.stdout == b""
    assert ended.stderr.startswith(b"wf: error: ")
    assert is_one_clear_line(ended.stderr.decode().rstrip("\n"))


@pytest.mark.fault(SECTION, "wf: an argument of 120 kB", "P11")
@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "X"],
        ["submit", "a.b", "--key", "X"],
        ["run", "show", "X"],
        ["X"],
        ["submit", "a.b", "--delay", "X"],
    ],
    ids=["type", "key", "id", "command", "delay"],
)
def test_a_huge_argument_is_one_short_line(wf, arguments):
    answer = wf(*["9" * 120_000 if one == "X" else one for one in arguments])

    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 1000


@pytest.mark.fault(SECTION, "wf: control characters in an argument", "P11")
@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", HOSTILE],
        [HOSTILE],
        ["run", "show", HOSTILE],
        ["submit", "a.b", f"@{HOSTILE}"],
        ["run", "list", "--since", HOSTILE],
    ],
    ids=["type", "command", "id", "file", "time"],
)
def test_a_hostile_argument_is_not_echoed_as_it_is(wf, arguments):
    answer = wf(*arguments)

    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert is_quiet(answer.err)


@pytest.mark.fault(SECTION, "wf: the reader of a long list has gone (| head -1)", "P11")
@pytest.mark.parametrize(
    "command", ["run list --limit 1000", "run list --limit 1000 --json", "--help", "config"]
)
def test_a_reader_that_leaves_early_is_no_error(db, database_url, command):
    db.execute(
        "select submit_many(array_fill('a.b'::text, array[1000]), array_fill('{}'::jsonb, array[1000]),"
        " null, null, null, null, null)"
    )

    ended = subprocess.run(
        ["/bin/bash", "-c", f"'{WF}' {command} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | {"DATABASE_URL": database_url},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode in (0, 141)
    assert ended.stderr == b""
    assert ended.stdout.count(b"\n") == 1


@pytest.mark.fault(SECTION, "wf submit: stdin that is closed, empty, binary, or endless", "P11")
@pytest.mark.parametrize("source", ["<&-", "</dev/null", "</dev/urandom", "</dev/zero"])
def test_a_payload_from_a_hopeless_stdin_is_one_line_and_flat_memory(db, database_url, source):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    ended = subprocess.run(
        ["/bin/sh", "-c", f"'{WF}' submit a.b - {source}"],
        env=os.environ | {"DATABASE_URL": database_url},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2, ended.stderr
    assert is_one_clear_line(ended.stderr.decode().rstrip("\n"))
    assert count(db, "workflow_run") == 0
    # 8 MB are read, and not one more: 64 MB above any child before, at most.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before, 100_000) + 64_000


@pytest.mark.fault(SECTION, "wf submit: a payload file of 100 MB", "P11")
def test_a_payload_of_100_megabytes_is_refused_with_flat_memory(db, database_url, tmp_path):
    with open(tmp_path / "large.json", "wb") as file:
        file.write(b'"')
        file.truncate(100_000_000)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    ended = call([b"submit", b"a.b", b"@large.json"], database_url, cwd=tmp_path)

    assert ended.returncode == 2
    assert b"larger than the 1 MB that a run can hold" in ended.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before, 100_000) + 64_000


PAGES = (
    ["run", "list"],
    ["run", "list", "--json"],
    ["run", "show", "ID"],
    ["run", "show", "ID", "--json"],
    ["run", "watch", "ID", "--no-follow"],
)


def read_by_every_page(wf, run_id: str) -> None:
    """Fail if a page cannot show the run, or lets through what a terminal obeys."""
    for page in PAGES:
        answer = wf(*[run_id if word == "ID" else word for word in page])
        assert answer.code == 0, (page, answer.err)
        assert is_quiet(answer.out), page


@pytest.mark.fault(SECTION, "a row that tells a terminal what to do", "P11")
@pytest.mark.parametrize(
    "column",
    [
        "payload",
        "payload key",
        "result",
        "last_error",
        "idempotency_key",
        "leased_by",
        "progress",
        "percent",
        "reason",
    ],
)
def test_what_a_row_holds_is_shown_and_not_obeyed(wf, db, column):
    value = HOSTILE
    held = a_held_run(db, type=a_type(), worker=value if column == "leased_by" else "w", seconds=600)
    escaped = db.execute(
        "select quote_literal(%s::text), to_jsonb(%s::text)::text", [value, value]
    ).fetchone()
    literal, as_json = escaped
    match column:
        case "payload":
            rewrite(db, held.id, f"payload = to_jsonb({literal}::text)")
        case "payload key":
            rewrite(db, held.id, f"payload = jsonb_build_object({literal}, {literal})")
        case "result":
            rewrite(db, held.id, f"result = to_jsonb({literal}::text)")
        case "last_error" | "idempotency_key":
            rewrite(db, held.id, f"{column} = {literal}")
        case "progress":
            db.execute("select progress('w', %s, 1, %s::jsonb)", [held.id, f'{{"message": {as_json}}}'])
        case "percent":
            db.execute("select progress('w', %s, 1, %s::jsonb)", [held.id, f'{{"percent": {as_json}}}'])
        case "reason":
            db.execute("select cancel(array[%s]::uuid[], %s)", [held.id, value])

    read_by_every_page(wf, held.id)


@pytest.mark.fault(SECTION, "plain SQL: what PostgreSQL holds and Python cannot, on every page", "P11")
@pytest.mark.parametrize("where", ["payload", "result", "progress"])
@pytest.mark.parametrize(
    "value",
    ["1e131071", "1e400", "-1e400", "'[1e-16383]'", "3000 levels", '\'{"__proto__": {"a": 1}}\''],
    ids=["131072 digits", "beyond a float", "below a float", "16383 decimals", "3000 levels", "prototype"],
)
def test_a_value_that_python_cannot_hold_is_shown_on_every_page(wf, db, where, value):
    held = a_held_run(db, type=a_type(), worker="w", seconds=600)
    sql = (
        "repeat('[', 3000) || repeat(']', 3000)"
        if value == "3000 levels"
        else value
        if value[0] == "'"
        else f"'{value}'"
    )
    if where == "progress":
        if value in ("1e131071", "3000 levels"):
            sql = "'1e50000'"
        db.execute(f"select progress('w', %s, 1, ({sql})::jsonb)".encode(), [held.id])
    else:
        # Past the guard: a row may be older than it.
        rewrite(db, held.id, f"{where} = ({sql})::jsonb")

    read_by_every_page(wf, held.id)


# ── plain SQL ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "plain SQL: numbers that print as 1.3 GB, compressed in another table", "P11")
@pytest.mark.parametrize("how", ["insert", "update"])
def test_amplification_is_found_also_in_what_comes_compressed(db, how):
    db.execute("create temp table elsewhere (payload jsonb)")
    db.execute("insert into elsewhere select ('[' || repeat('1e131071,', 10000) || '1]')::jsonb")
    size = db.execute("select pg_column_size(payload) from elsewhere").fetchone()[0]
    run_id = a_run(db)
    statement = {
        "insert": "insert into workflow_run (type, payload) select 'a.b', payload from elsewhere",
        "update": "update workflow_run set payload = (select payload from elsewhere)",
    }[how]

    sqlstate, message = refusal(db, statement)

    assert size < 20_000
    assert sqlstate == "WF002"
    assert message == "payload: expected at most 1048576 bytes as text, got numbers that print as more"
    assert count(db, "workflow_run", "id = %s and payload = '{}'", run_id) == count(db, "workflow_run") == 1


@pytest.mark.fault(SECTION, "plain SQL: JSON that is none", "P11")
@pytest.mark.parametrize(
    ("value", "sqlstate"),
    [
        ('"\\u0000"', "22P05"),
        ('"\\ud800"', "22P02"),
        ('"\\udc00\\ud800"', "22P02"),
        ("{", "22P02"),
        ("NaN", "22P02"),
        ("1e131072", "22003"),
        ("[" * 100_000 + "]" * 100_000, "54001"),
        ("[" * 2_000 + "]" * 2_000, "WF002"),
        ("100 MB", "WF002"),
    ],
    ids=[
        "nul",
        "half a pair",
        "reversed pair",
        "cut",
        "nan",
        "beyond numeric",
        "100,000 levels",
        "2,000 levels",
        "100 MB",
    ],
)
def test_json_that_cannot_be_kept_is_refused_at_the_insert(db, value, sqlstate):
    given = "to_jsonb(repeat('x', 100000000) || %s)" if value == "100 MB" else "%s::text::jsonb"
    found, message = refusal(db, f"insert into workflow_run (type, payload) values ('a.b', {given})", value)

    assert found == sqlstate
    assert is_one_clear_line(message)
    assert count(db, "workflow_run") == 0


@pytest.mark.fault(SECTION, "plain SQL: typing mistakes", "P5, P11")
@pytest.mark.parametrize(
    "statement",
    [
        f"update workflow_run set status = 'cancel{'ed'}'",
        "update workflow_run set status = 'CANCELLED'",
        "update workflow_run set status = 'cancelled '",
        "update workflow_run set status = ''",
        "update workflow_run set status = null",
        "update workflow_run set status = 'done'",
        "update workflow_run set status = 'pending', attempt = 0",
        "update workflow_run set type = 'a.c'",
        "update workflow_run set payload = null",
        "update workflow_run set run_at = 'infinity'",
        "update workflow_run set idempotency_key = 'k'",
        "update workflow_run set id = gen_random_uuid()",
        "delete from workflow_run",
        "truncate workflow_run",
        "insert into workflow_run (type, status) values ('a.b', 'queued')",
        "insert into workflow_run (type, payload) values ('a.b', '{\"a\": 1')",
        "insert into workflow_run (type, attempt) values ('a.b', 1)",
    ],
)
def test_a_typing_mistake_changes_nothing(db, statement):
    run_id = a_run(db, status="leased")
    before = db.execute("select run::text from workflow_run as run where id = %s", [run_id]).fetchone()

    sqlstate, message = refusal(db, statement.replace("%", "%%"))

    assert sqlstate is not None
    assert is_one_clear_line(message)
    assert db.execute("select run::text from workflow_run as run").fetchall() == [before]
