"""Passwords and contents are in no log line, no error, no repr, no command line."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from builders import Database, cancel, connect, status_of, submit
from conftest import Server
from roles import PASSWORD, Logins, logins
from simpleworkflow import Client, NewRun, Worker
from simpleworkflow.dburl import parse
from simpleworkflow.errors import DatabaseUnavailable, WorkflowError
from simpleworkflow.resolve import resolve_database
from simpleworkflow.settings import Settings
from simpleworkflow.statements import Claimed, Finished, submit_run
from worker.stage import Program, children_of, ended, eventually

MARK = "Marked"  # it begins the password, every payload, result and error of these tests
PAYLOAD = {"word": "Marked-payload"}


@pytest.fixture
def roles(server: Server, database_url: str) -> Iterator[Logins]:
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    with logins(server, database_url) as made:
        yield made


@pytest.fixture
def superuser_of(server: Server, roles: Logins) -> Iterator[Database]:
    with connect(server.url_of(roles.schema, superuser=True)) as superuser:
        yield superuser


def tree_of(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    return [pid, *(one for child in children_of(pid) for one in tree_of(child))]


def read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.fault(
    "Security", "success, failure and outage, with DEBUG on, looked through for secrets", "P11"
)
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_a_worker_logs_neither_its_password_nor_what_its_runs_are_about(
    db: Database, roles: Logins, superuser_of: Database, tmp_path: Path, level: str
) -> None:
    # A rule of the user's own, whose refusal PostgreSQL explains with the whole row.
    db.execute("alter table workflow_run add check (result::text not like '%Refused%')")
    kinds = ("succeed", "fail", "retry", "typed", "cpu", "overrun", "unstorable", "refused")
    url = roles.url_of("application")
    with Program(url, tmp_path, target="secret_app:worker", SIMPLEWORKFLOW_LOG_LEVEL=level) as program:
        program.started()
        runs = {kind: submit(db, f"secret.{kind}.v1", PAYLOAD) for kind in kinds}
        stopped = submit(db, "secret.cancel.v1", PAYLOAD)
        eventually(lambda: status_of(db, stopped) == "leased")
        cancel(db, stopped)
        found = {kind: ended(db, run_id) for kind, run_id in runs.items()}

        an_outage(superuser_of, roles.name_of("application"), program)
        assert ended(db, submit(db, "secret.succeed.v1", PAYLOAD)) == "succeeded"
        lines = [read(pid, "cmdline") for pid in tree_of(program.pid)]

    succeeds = ("succeed", "retry")
    assert found == {kind: "succeeded" if kind in succeeds else "failed" for kind in kinds}
    assert len(lines) >= 2
    assert MARK not in program.log
    assert MARK not in "".join(lines)
    assert "the database is away" in program.log


def an_outage(superuser: Database, login: str, program: Program) -> None:
    """Let the database refuse a login for a moment."""
    superuser.execute(f"alter role {login} nologin".encode())
    try:
        superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [login]
        )
        eventually(lambda: "the database is away" in program.log, what="the outage")
    finally:
        superuser.execute(f"alter role {login} login".encode())


@pytest.mark.fault("Security", "the password given on the worker's own command line", "P11")
def test_a_password_of_the_command_line_goes_no_further(db: Database, roles: Logins, tmp_path: Path) -> None:
    url = roles.url_of("worker")
    options = ("--processes", "2", "--database-url", url)
    with Program("", tmp_path, target="secret_app:worker", options=options) as program:
        program.started(2)
        submit(db, "secret.cpu.v1", PAYLOAD)
        eventually(
            lambda: status_of(db, str(db.execute("select id from workflow_run").fetchone()[0])) == "failed"
        )
        children = tree_of(program.pid)[1:]
        seen = [read(pid, name) for pid in children for name in ("cmdline", "environ")]

    assert len(children) >= 3
    assert PASSWORD not in "".join(seen) + program.log


@pytest.mark.fault("Security", "a wrong password", "P11")
def test_a_wrong_password_is_refused_without_being_said(
    db: Database, roles: Logins, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = roles.url_of("worker").replace(PASSWORD, "Marked-wrong")
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        pass
    else:
        pytest.skip("this server trusts whoever comes: it asks for no password")
    caplog.set_level(logging.DEBUG)

    with Program(url, tmp_path, target="secret_app:worker", SIMPLEWORKFLOW_LOG_LEVEL="DEBUG") as program:
        eventually(lambda: "password authentication failed" in program.log)
    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as raised:
        Client(database_url=url).submit("secret.succeed.v1", PAYLOAD)
    said = subprocess.run(
        [str(Path(sys.executable).with_name("wf")), "--debug", "run", "list"],
        env={"DATABASE_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert said.returncode == 3
    everything = [
        program.log,
        str(raised.value),
        repr(raised.value),
        str(raised.value.__cause__),
        caplog.text,
    ]
    assert MARK not in "".join([*everything, said.stdout, said.stderr])


@pytest.mark.fault("Security", "what is refused when it is submitted", "P11")
@pytest.mark.parametrize(
    "submit_it",
    [
        lambda client: client.submit("no type!", PAYLOAD),
        lambda client: client.submit("a.v1", {"word": object(), "Marked": 1}),
        lambda client: client.submit("a.v1", {"word": "Marked" + "x" * 2_000_000}),
        lambda client: client.submit("a.v1", "Marked-payload \udcff"),
        lambda client: client.submit("a.v1", PAYLOAD, max_attempts=0),
        lambda client: client.submit("a.v1", PAYLOAD, priority=2**40),
        lambda client: client.submit_many([("a.v1", PAYLOAD), ("a.v1", {"Marked": object()})]),
        lambda client: client.submit("refused.v1", PAYLOAD),
    ],
    ids=["type", "object", "size", "surrogate", "attempts", "priority", "many", "a rule of the user's own"],
)
def test_an_error_of_a_client_holds_no_payload(
    db: Database, database_url: str, submit_it: Callable[[Client], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    db.execute("alter table workflow_run add check (type <> 'refused.v1')")

    refused = pytest.raises((WorkflowError, psycopg.errors.CheckViolation))
    with Client(database_url=database_url) as client, refused as raised:
        submit_it(client)

    if isinstance(raised.value, WorkflowError):  # what PostgreSQL says of a rule of the user's own is its own
        assert "Marked-payload" not in f"{raised.value} {raised.value!r}"
    assert MARK not in caplog.text


def test_nothing_that_can_be_shown_shows_a_secret(db: Database, roles: Logins, tmp_path: Path) -> None:
    url = roles.url_of("application")
    new = NewRun(type="secret.v1", payload=PAYLOAD)
    with Client(database_url=url) as client:
        handle = client.submit("secret.v1", PAYLOAD)
        run, events = handle.get(), client.events(handle.id)
    worker = Worker(database_url=url)
    settings = Settings.from_environment({"DATABASE_URL": url})
    shown = [
        *(client, handle, run, events, new, submit_run(new), worker, settings, settings.rows()),
        *(parse(url), resolve_database(url)),
        Claimed("id", "secret.v1", '"Marked"', 1, 3, 1, "now", is_suspect=False),
        Finished("id", 1, "succeeded", '"Marked"', "Marked"),
    ]

    assert run.payload == PAYLOAD
    assert [one for one in map(repr, shown) if MARK in one] == []
    assert [one for one in map(str, shown) if MARK in one] == []
