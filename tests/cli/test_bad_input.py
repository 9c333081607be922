"""Whatever is wrong is one line with the remedy, and the exit code that is documented."""

from __future__ import annotations

import os
import subprocess
import uuid

import pytest

from cli.programs import WF

UNKNOWN = str(uuid.uuid4())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "no such command 'nope'"),
        (["run", "show", "abc"], "expected a run id (a UUID), got 'abc'"),
        (["run", "show"], "missing argument 'ID'"),
        (["run", "list", "--status", "done"], "'done' is not one of 'pending'"),
        (["run", "list", "--type", "a b"], "expected a type, or a prefix that ends in %"),
        (["run", "list", "--limit", "0"], "0 is not in the range"),
        (["run", "list", "--since", "yesterday"], "or how long ago such as 2h, got 'yesterday'"),
        (["submit", "bad type"], "type: expected words of A-Z"),
        (["submit", "a.b", "{bad"], "the payload is not JSON"),
        (["submit", "a.b", "null"], "payload"),
        (["submit", "a.b", "NaN"], "NaN"),
        (["submit", "a.b", "[" * 10_000], "nested too deep"),
        (["submit", "a.b", "--delay", "soon"], "expected a duration such as 30s"),
        (["submit", "a.b", "--run-at", "2030-01-01T00:00:00"], "expected a time with its zone"),
        (["submit", "a.b", "--max-attempts", "0"], "0 is not in the range"),
        (["submit", "a.b", "--key", ""], "idempotency_key"),
        (["migrate", "--to", "9999"], "--to: expected 1 to"),
        (["migrate", "--check", "--sql"], "do not go together"),
        (["worker", "app"], "expected MODULE:WORKER"),
        (["--database-url", "mysql://db", "migrate"], "--database-url: expected a database URL"),
    ],
)
def test_an_argument_that_cannot_be_used_is_one_line_and_exit_code_2(wf, arguments, said):
    answer = wf(*arguments)

    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("wf: error: ")
    assert answer.err.count("\n") == 1
    assert said in answer.err


@pytest.mark.parametrize("command", [["show"], ["cancel"], ["reopen"], ["watch"]])
def test_an_unknown_run_is_exit_code_5(wf, command):
    answer = wf("run", *command, UNKNOWN)

    assert (answer.code, answer.err) == (5, f"wf: error: run {UNKNOWN} does not exist\n")


def test_a_malformed_url_of_the_environment_is_named_without_its_password(wf, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:se@cret@host:port/db")

    answer = wf("run", "list")

    assert answer.code == 2
    assert answer.err.startswith("wf: error: DATABASE_URL: ")
    assert "cret" not in answer.err


def test_a_server_that_is_not_there_is_exit_code_3(wf):
    answer = wf("run", "list", "--database-url", "postgresql://user:secret@127.0.0.1:1/db")

    assert answer.code == 3
    assert "cannot be reached" in answer.err
    assert "wf config" in answer.err
    assert answer.err.count("\n") == 1
    assert "secret" not in answer.err


def test_a_schema_without_tables_is_exit_code_4(wf, empty_url):
    for line in ("run list", "submit a.b", "migrate --check", f"run watch {UNKNOWN}", "verify"):
        answer = wf(*line.split(), "--database-url", empty_url)

        assert answer.code == 4
        assert "run `wf migrate`" in answer.err
        assert answer.err.count("\n") == 1


def test_binary_stdin_and_missing_files_are_refused(program, database_url):
    binary = program("submit", "a.b", "-", stdin=b"\xff\xfe\x00{", DATABASE_URL=database_url)
    missing = program("submit", "a.b", "@no-such-file", DATABASE_URL=database_url)

    assert (binary.code, missing.code) == (2, 2)
    assert binary.err.startswith("wf: error: the payload on stdin is not UTF-8 text")
    assert missing.err.startswith("wf: error: the payload in no-such-file cannot be read: No such file")


def test_a_payload_comes_from_stdin_or_a_file(program, database_url, tmp_path):
    (tmp_path / "payload.json").write_text('{"n": 2}')

    for argument, stdin in (("-", b'{"n": 1}'), ("@payload.json", b"")):
        answer = program("submit", "a.b", argument, stdin=stdin, cwd=tmp_path, DATABASE_URL=database_url)

        assert answer.code == 0


def test_a_closed_output_is_survived(environment, database_url):
    env = environment | {"DATABASE_URL": database_url}
    for shell in (f"'{WF}' run list >&-", f"'{WF}' config >&- 2>&-", f"'{WF}' submit a.b <&- >&-"):
        ended = subprocess.run(["/bin/sh", "-c", shell], env=env, capture_output=True, check=False)

        assert ended.returncode == 0
        assert b"error" not in ended.stderr


def test_a_full_disk_and_a_reader_that_left_are_told_by_the_exit_code(environment, database_url):
    env = environment | {"DATABASE_URL": database_url}
    with open("/dev/full", "w") as full:
        ended = subprocess.run([WF, "config"], env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"wf: error: ")
    assert ended.stderr.count(b"\n") == 1

    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run([WF, "config"], env=env, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_bug_is_one_line_unless_the_traceback_is_asked_for(wf, monkeypatch):
    def fail() -> None:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("simpleworkflow.cli.config.read_settings", fail)

    short, long = wf("config"), wf("--debug", "config")

    assert (short.code, long.code) == (70, 70)
    assert short.err.count("\n") == 1
    assert "unexpected ZeroDivisionError: a bug of two lines; set WF_TRACEBACK=1" in short.err
    assert "Traceback" in long.err


def test_a_worker_module_that_is_none_is_one_line_and_exit_code_2(program, database_url, tmp_path):
    (tmp_path / "empty.py").write_text("")

    for target in ("no_such_module:worker", "empty:worker"):
        answer = program("worker", target, cwd=tmp_path, DATABASE_URL=database_url)

        assert answer.code == 2
        assert answer.err.startswith("wf: error: ")
        assert answer.err.count("\n") == 1
