"""How a worker stops: SIGTERM idle, at work, past its grace, with the database away; hooks and exit codes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from builders import Database, column_of, events_of, status_of, submit
from faults.proxy import Proxy
from worker.stage import Notes, Program, at_port, ended, eventually

KINDS = [pytest.param(False, id="supervisor"), pytest.param(True, id="program")]


@pytest.fixture
def run_program(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start programs; they are killed after the test."""
    programs: list[Program] = []

    def start(*, url: str = database_url, **options: str | bool | list[str]) -> Program:
        programs.append(Program(url, tmp_path, **options))  # type: ignore[arg-type]
        return programs[-1]

    yield start
    for program in programs:
        program.__exit__(None)


@pytest.fixture
def network(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as network:
        yield network


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM, idle", "P1")
@pytest.mark.parametrize("is_script", KINDS)
def test_an_idle_worker_stops_within_a_second_and_calls_its_hooks(
    is_script: bool, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    program = run_program(is_script=is_script).started()

    sent_at = program.signal(signal.SIGTERM)

    assert program.exit_code() == 0
    assert monotonic() - sent_at < 1.2
    assert len(Notes(tmp_path).all("startup")) == len(Notes(tmp_path).all("shutdown")) == 1
    assert "Traceback" not in program.log


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM, with a short handler", "P2")
@pytest.mark.parametrize(("is_script", "type_"), [(False, "app.sleep.v1"), (True, "app.thread.v1")])
def test_a_handler_that_ends_within_the_grace_finishes(
    is_script: bool, type_: str, db: Database, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    program = run_program(is_script=is_script).started()
    run_id = submit(db, type_, {"seconds": 0.7})
    Notes(tmp_path).wait(type_.split(".")[1], run_id)
    later = submit(db, "app.quick.v1", run_at=None, delay=0.4)

    program.signal(signal.SIGTERM)

    assert program.exit_code() == 0
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]
    assert status_of(db, later) == "pending"


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM, with a handler longer than the grace", "P1, P7")
@pytest.mark.parametrize(
    ("is_script", "type_"),
    [(False, "app.sleep.v1"), (False, "app.thread.v1"), (True, "app.thread.v1"), (True, "app.stubborn.v1")],
)
def test_a_handler_longer_than_the_grace_is_given_back_and_starts_elsewhere(
    is_script: bool, type_: str, db: Database, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    program, word = run_program(is_script=is_script, GRACE="0.5").started(), type_.split(".")[1]
    run_id = submit(db, type_, {"seconds": 60})
    Notes(tmp_path).wait(word, run_id)
    other = run_program(POLL="5").started()

    sent_at = program.signal(signal.SIGTERM)
    Notes(tmp_path).wait(word, run_id, count=2)
    seconds = monotonic() - sent_at

    assert seconds < 0.5 + 1
    assert column_of(db, run_id, "attempt") == 1
    assert events_of(db, run_id)[:4] == ["created", "leased", "released", "leased"]
    program.exit_code()
    assert monotonic() - sent_at < 0.5 + 5.5
    other.process.kill()


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM, then SIGINT", "P1")
@pytest.mark.parametrize("is_script", KINDS)
def test_a_second_signal_gives_back_at_once(
    is_script: bool, db: Database, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    program = run_program(is_script=is_script, GRACE="30").started()
    run_id = submit(db, "app.sleep.v1", {"seconds": 60})
    Notes(tmp_path).wait("sleep", run_id)

    program.signal(signal.SIGTERM)
    eventually(lambda: status_of(db, run_id) == "leased")
    sent_at = program.signal(signal.SIGINT)

    assert program.exit_code() == 0
    assert monotonic() - sent_at < 1.5
    assert (status_of(db, run_id), column_of(db, run_id, "attempt")) == ("pending", 0)


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM to all processes of a service", "P2")
def test_a_signal_to_all_processes_of_a_service_is_one_request_to_stop(
    db: Database, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    program = run_program(options=["--processes", "2"]).started(2)
    run_id = submit(db, "app.sleep.v1", {"seconds": 1})
    Notes(tmp_path).wait("sleep", run_id)

    os.killpg(program.pid, signal.SIGTERM)

    assert program.exit_code() == 0
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM in start-up, connections are refused", "P1")
@pytest.mark.parametrize("is_script", KINDS)
def test_a_worker_that_starts_while_the_database_is_away_can_be_stopped(
    is_script: bool, run_program: Callable[..., Program], database_url: str
) -> None:
    program = run_program(is_script=is_script, url=at_port(database_url, 1))
    eventually(lambda: "the database is away" in program.log, seconds=15)

    sent_at = program.signal(signal.SIGTERM)

    assert program.exit_code() == 0
    assert monotonic() - sent_at < 2
    # Each process once: the heart of a service asks the database too.
    said = re.findall(r"(?:\[(\d+)\])?: ?the database is away", program.log)
    assert len(set(said)) == len(said) > 0


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGTERM with the database black-holed", "P3")
@pytest.mark.parametrize(
    ("is_script", "is_silent_from_the_start"), [(False, False), (True, False), (True, True)]
)
def test_a_worker_whose_database_is_silent_ends_within_its_grace_and_five_seconds(
    is_script: bool,
    is_silent_from_the_start: bool,
    run_program: Callable[..., Program],
    network: Proxy,
    db: Database,
    tmp_path: Path,
) -> None:
    if is_silent_from_the_start:
        network.black_hole()
    program = run_program(is_script=is_script, url=network.url, GRACE="0.2")
    if is_silent_from_the_start:
        Notes(tmp_path).wait("loaded")
    else:
        program.started()
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        Notes(tmp_path).wait("sleep", run_id)
        network.black_hole()

    sent_at = program.signal(signal.SIGTERM)
    program.exit_code()

    assert monotonic() - sent_at < 5.7


def test_a_released_run_of_a_worker_that_ended_is_executed_again(
    db: Database, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    program = run_program(GRACE="0").started()
    run_id = submit(db, "app.thread.v1", {"seconds": 60})
    Notes(tmp_path).wait("thread", run_id)
    program.signal(signal.SIGTERM)
    program.exit_code()

    db.execute("update workflow_run set payload = '{\"seconds\": 0}' where id = %s", [run_id])
    run_program().started()

    assert ended(db, run_id) == "succeeded"
    assert column_of(db, run_id, "result") == 2
