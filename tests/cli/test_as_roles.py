"""The whole program as each role: what it may it does, what it may not is refused in one line that says who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from builders import Database, a_run, a_type, connect, events_of, status_of, submit
from cli.programs import Answer
from conftest import Server
from roles import WHO, Logins, logins
from simpleworkflow import Client, RunHandle
from simpleworkflow.cli import main
from simpleworkflow.errors import NotPermitted
from worker.stage import Notes, Program


@pytest.fixture(scope="module")
def roles(server: Server, module_url: str) -> Iterator[Logins]:
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    with logins(server, module_url) as made:
        yield made


@pytest.fixture
def wf_as(
    environment: dict[str, str],
    roles: Logins,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Answer]:
    """Run ``wf`` in this process as a role."""

    def run(who: str, *arguments: object) -> Answer:
        monkeypatch.setenv("DATABASE_URL", roles.url_of(who))
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run


# What each command takes; an application may do all of them.
COMMANDS = {
    "submit a.v1": ["producer"],
    "run list": ["reader", "operator"],
    "run show <failed>": ["reader", "operator"],
    "run watch <failed>": ["reader", "operator"],
    "run cancel <pending>": ["operator"],
    "run reopen <failed>": ["operator"],
    "prune --older-than 1000d": ["operator"],
    "type policy no.such.type": ["operator"],
    "type policy no.such.type --default": ["operator"],
    "type policies": ["reader", "operator"],
    "type list": ["reader", "operator"],
    "type pause no.such.type": ["operator"],
    "type resume no.such.type": ["operator"],
    "verify": ["operator"],
    "migrate --check": ["producer", "worker", "operator", "reader"],
}


@pytest.mark.fault("Security", "a command as a role", "P6")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("who", WHO)
def test_a_command_does_what_its_role_may_and_else_says_in_one_line_who_may(
    module_url: str, module_db: Database, roles: Logins, wf_as: Callable[..., Answer], who: str, command: str
) -> None:
    runs = {"<failed>": a_run(module_db, status="failed"), "<pending>": a_run(module_db)}

    answer = wf_as(who, *[runs.get(word, word) for word in command.split()])

    if who in [*COMMANDS[command], "application"]:
        assert (answer.code, "error" in answer.err) == (0, False)
    else:
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.count("\n") == 1
        assert "permission denied for" in answer.err
        named = [f"{roles.schema}_{group}" for group in ("producer", "worker", "reader", "operator")]
        assert any(name in answer.err for name in named) or "wf migrate --roles" in answer.err


def test_a_reader_sees_a_run_without_its_contents_and_is_told_so(
    module_db: Database, wf_as: Callable[..., Answer]
) -> None:
    run_id = submit(module_db, payload={"secret": "Marked-payload"})

    shown = wf_as("reader", "run", "show", run_id)
    document = wf_as("reader", "run", "show", run_id, "--json").document

    assert "Marked-payload" not in shown.out
    assert "last_error, payload, result: not this role's to read" in shown.out
    assert (document["run"]["payload"], document["run"]["status"]) == (None, "pending")
    assert document["run"]["hidden"] == ["last_error", "payload", "result"]


# ── end to end ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Security", "producer, worker, reader and operator as four roles, end to end", "P1, P6")
@pytest.mark.parametrize("worker", ["worker", "application"])
def test_each_part_of_the_system_works_with_its_own_role(
    module_url: str,
    module_db: Database,
    roles: Logins,
    wf_as: Callable[..., Answer],
    tmp_path: Path,
    worker: str,
) -> None:
    with (
        Client(database_url=roles.url_of("producer")) as producer,
        Client(database_url=roles.url_of("reader")) as reader,
        Program(roles.url_of(worker), tmp_path) as program,
    ):
        program.started()
        quick = producer.submit("app.quick.v1", idempotency_key=f"key of {worker}")
        again = producer.submit("app.quick.v1", idempotency_key=f"key of {worker}")
        slow = producer.submit("app.sleep.v1", {"seconds": 60})
        Notes(tmp_path).wait("sleep", str(slow.id))

        assert (again.id, again.created) == (quick.id, False)
        assert reader.wait(quick.id, timeout=10).status == "succeeded"
        assert wf_as("operator", "run", "cancel", slow.id).code == 0
        Notes(tmp_path).wait("cancelled", str(slow.id))
        assert reader.wait(slow.id, timeout=10).status == "cancelled"
        assert str(quick.id) in wf_as("reader", "run", "list").out

    assert events_of(module_db, str(quick.id)) == ["created", "leased", "succeeded"]
    assert events_of(module_db, str(slow.id)) == ["created", "leased", "cancelled"]
    assert "permission denied" not in program.log


@pytest.mark.fault("Security", "a worker that claims with a role that may not", "P1")
@pytest.mark.parametrize("who", ["producer", "reader", "operator", "nobody"])
def test_a_worker_of_another_role_ends_at_once_with_one_line(
    module_url: str, module_db: Database, roles: Logins, tmp_path: Path, who: str
) -> None:
    with Program(roles.url_of(who), tmp_path) as program:
        assert program.exit_code() == 1

    said = [line for line in program.log.splitlines() if "permission denied" in line]
    assert len(said) == 1
    assert f"{roles.schema}_worker" in said[0] or "wf migrate --roles" in said[0]
    assert "Traceback" not in program.log


# ── waiting, and results ───────────────────────────────────────────────────────────────────────────


def test_a_result_takes_a_grant_of_its_own(module_db: Database, server: Server, roles: Logins) -> None:
    type_ = a_type()
    run_id = a_run(module_db, status="succeeded", type=type_)

    with (
        Client(database_url=roles.url_of("reader")) as reader,
        connect(server.url_of(roles.schema, superuser=True)) as superuser,
    ):
        assert reader.wait(run_id).status == "succeeded"
        with pytest.raises(NotPermitted, match="may not read results; grant select"):
            RunHandle(UUID(run_id), False, reader).result()
        superuser.execute(f"grant select (result) on workflow_run to {roles.name_of('reader')}".encode())
        assert RunHandle(UUID(run_id), False, reader).result() is None
        superuser.execute(f"revoke select (result) on workflow_run from {roles.name_of('reader')}".encode())


def test_a_producer_that_waits_is_told_who_may_read(module_db: Database, roles: Logins) -> None:
    with Client(database_url=roles.url_of("producer")) as producer:
        handle = producer.submit(a_type())
        with pytest.raises(NotPermitted, match=f"role {roles.schema}_reader"):
            handle.wait(timeout=5)

    assert status_of(module_db, str(handle.id)) == "pending"


@pytest.mark.parametrize("key", [None, "k"])
def test_who_may_not_submit_is_told_who_may(roles: Logins, key: str | None) -> None:
    with (
        Client(database_url=roles.url_of("reader")) as reader,
        pytest.raises(NotPermitted, match=f"role {roles.schema}_producer"),
    ):
        reader.submit(a_type(), idempotency_key=key)
