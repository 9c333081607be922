"""Signals to each process of a service: which stop it, which cost an attempt, which do nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from builders import Database, a_type, column_of, events_of, status_of, submit
from simpleworkflow import Worker
from worker.stage import WF, Notes, Program, children_of, ended, eventually, is_running

SHUTDOWN = "Shutdown, deploys, migrations"
DEATH = "Death, pause, leases"
FINE = ["created", "leased", "succeeded"]
CRASHED = ["created", "leased", "expired", "leased", "succeeded"]
SEED = random.randrange(1_000_000)


def named(*numbers: signal.Signals) -> list[Any]:
    return [pytest.param(number, id=number.name) for number in numbers]


# ── to one process ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(DEATH, "a signal that ends no child, to a child alone", "P1, P2")
@pytest.mark.parametrize("number", named(signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM))
def test_a_child_that_is_sent_a_mild_signal_finishes_what_it_holds(
    number: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 0.5})
        pid = int(Notes(tmp_path).wait("sleep", run_id)[3])

        os.kill(pid, number)

        assert ended(db, run_id) == "succeeded"
        assert events_of(db, run_id) == FINE
        assert ended(db, submit(db, "app.quick.v1")) == "succeeded"
        assert program.process.poll() is None
        assert is_running(pid) == (number != signal.SIGTERM), "SIGTERM replaces it"


@pytest.mark.fault(DEATH, "a signal that kills, to a child alone", "P1, P2")
@pytest.mark.parametrize("number", named(signal.SIGQUIT, signal.SIGUSR1, signal.SIGABRT, signal.SIGALRM))
def test_a_child_that_a_signal_has_killed_is_replaced_and_its_run_started_again(
    number: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        os.kill(int(Notes(tmp_path).wait("sleep", run_id)[3]), number)

        assert ended(db, run_id) == "succeeded"
        assert events_of(db, run_id) == CRASHED
        assert signal.Signals(number).name in program.log


@pytest.mark.fault(DEATH, "a signal to the heart of a program", "P3")
@pytest.mark.parametrize(
    "number",
    named(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1),
)
def test_whatever_is_sent_to_a_heart_its_program_keeps_its_leases(
    number: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, is_script=True, LEASE="5") as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        Notes(tmp_path).wait("sleep", run_id)
        [heart] = children_of(program.pid)

        os.kill(heart, number)  # in its start, most likely

        for _ in range(2):
            before = column_of(db, run_id, "lease_until")
            eventually(lambda: column_of(db, run_id, "lease_until") > before, what="a beat")  # noqa: B023
        assert is_running(heart) == (number != signal.SIGUSR1)
        assert events_of(db, run_id) == ["created", "leased"]


@pytest.mark.fault(SHUTDOWN, "the terminal's end (SIGHUP to all processes)", "P2")
@pytest.mark.parametrize("is_script", [False, True])
def test_the_end_of_the_terminal_stops_a_service_gracefully(
    is_script: bool, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, is_script=is_script) as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 0.5})
        Notes(tmp_path).wait("sleep", run_id)

        os.killpg(program.pid, signal.SIGHUP)

        assert program.exit_code() == 0
    assert events_of(db, run_id) == FINE


@pytest.mark.fault(SHUTDOWN, "SIGHUP to a service under nohup, SIGPIPE to any", "P2")
@pytest.mark.parametrize(
    ("number", "wf"), [(signal.SIGHUP, ("nohup", WF)), (signal.SIGPIPE, (WF,))], ids=["nohup", "pipe"]
)
def test_a_signal_that_is_ignored_changes_nothing(
    number: int, wf: tuple[str, ...], db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, wf=wf) as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 0.5})
        Notes(tmp_path).wait("sleep", run_id)

        os.killpg(program.pid, number)

        assert ended(db, run_id) == "succeeded"
        assert ended(db, submit(db, "app.quick.v1")) == "succeeded"
        assert program.process.poll() is None
    assert events_of(db, run_id) == FINE


@pytest.mark.fault(SHUTDOWN, "a signal that kills the supervisor", "P1")
@pytest.mark.parametrize("number", named(signal.SIGQUIT, signal.SIGUSR1))
def test_a_supervisor_that_a_signal_has_killed_leaves_its_runs_to_others(
    number: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        Notes(tmp_path).wait("sleep", run_id)
        children = program.children()

        os.kill(program.pid, number)

        assert program.exit_code() == -number
        eventually(lambda: not any(map(is_running, children)), seconds=2.5)
    assert (status_of(db, run_id), column_of(db, run_id, "attempt")) == ("pending", 0)


# ── while starting ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SHUTDOWN, "SIGTERM at a random moment of the start", "P1")
@pytest.mark.parametrize("is_script", [False, True])
def test_a_service_can_be_stopped_at_every_moment_of_its_start(
    is_script: bool,
    module_url: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("seed", SEED)
    chance = random.Random(SEED)
    for _ in range(4):
        with Program(module_url, tmp_path, is_script=is_script) as program:
            begun_at, wait = monotonic(), chance.uniform(0, 1.5)
            eventually(lambda: monotonic() - begun_at > wait)  # noqa: B023
            children = program.children()

            sent_at = program.signal(signal.SIGTERM)

            assert program.exit_code() in (0, -signal.SIGTERM), (SEED, program.log)
            assert monotonic() - sent_at < 2, (SEED, wait)
            eventually(lambda: not any(map(is_running, children)), seconds=2)  # noqa: B023
            assert "Traceback" not in program.log


@pytest.mark.fault(SHUTDOWN, "SIGTERM while the only child hangs in the import of its module", "P1")
def test_a_service_whose_child_hangs_while_starting_can_be_stopped(module_url: str, tmp_path: Path) -> None:
    with Program(module_url, tmp_path, target="hostile:worker", HANG_ONCE=str(tmp_path / "hung")) as program:
        Notes(tmp_path).wait("hangs")

        sent_at = program.signal(signal.SIGTERM)

        assert program.exit_code() == 0
        assert monotonic() - sent_at < 1.5


@pytest.mark.fault(SHUTDOWN, "SIGTERM while a start-up hook blocks the loop", "P1")
@pytest.mark.parametrize("is_script", [False, True])
def test_a_worker_whose_start_up_hook_hangs_ends_within_its_grace_and_five_seconds(
    is_script: bool, module_url: str, tmp_path: Path
) -> None:
    with Program(module_url, tmp_path, is_script=is_script, GRACE="0.1", STARTUP_HANGS="60") as program:
        Notes(tmp_path).wait("startup")

        sent_at = program.signal(signal.SIGTERM)

        program.exit_code()
        assert monotonic() - sent_at < 0.1 + 5 + 1


# ── a program whose loop is blocked ────────────────────────────────────────────────────────────────


@pytest.mark.fault(SHUTDOWN, "signals to a program whose handler blocks the loop", "P1, P4")
@pytest.mark.parametrize(("grace", "signals"), [("0.2", 1), ("30", 2)])
def test_a_program_with_a_blocked_loop_ends_in_time_and_its_run_starts_elsewhere(
    grace: str, signals: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with (
        Program(database_url, tmp_path, is_script=True, GRACE=grace) as program,
    ):
        run_id = submit(db, "app.block.v1", {"seconds": 60})
        Notes(tmp_path).wait("block", run_id)

        for _ in range(signals):
            sent_at = program.signal(signal.SIGTERM)
            eventually(lambda: monotonic() - sent_at > 0.2)  # noqa: B023

        assert program.exit_code() == 1
        assert monotonic() - sent_at < 5 + 0.5
        eventually(lambda: status_of(db, run_id) == "pending", seconds=1)
    assert events_of(db, run_id) == ["created", "leased", "expired"]


# ── in a host's own loop ───────────────────────────────────────────────────────────────────────────


def hosted(url: str, type_: str) -> tuple[Worker, asyncio.Event]:
    worker, started = Worker(database_url=url, poll_seconds=0.2, grace_seconds=30), asyncio.Event()

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        started.set()
        await asyncio.sleep(60)

    return worker, started


@pytest.mark.fault(SHUTDOWN, "SIGTERM, twice, to a program with a loop and handlers of its own", "P1")
def test_a_worker_in_a_hosts_loop_leaves_the_hosts_signal_handlers_as_they_were(
    db: Database, database_url: str
) -> None:
    heard: list[str] = []
    type_ = a_type()
    worker, started = hosted(database_url, type_)

    async def host() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, "loop")
        working = asyncio.create_task(worker.run_async())
        await started.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.1)
        await working
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)

    before = signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT)
    own = signal.signal(signal.SIGTERM, lambda *_: heard.append("own"))
    run_id = submit(db, type_)
    try:
        asyncio.run(host())
    finally:
        signal.signal(signal.SIGTERM, own)

    assert heard == ["loop"] * 3
    assert (signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT)) == before
    assert (status_of(db, run_id), column_of(db, run_id, "attempt")) == ("pending", 0)


@pytest.mark.fault(SHUTDOWN, "a host cancels the worker in its loop", "P1")
def test_a_worker_that_is_cancelled_by_its_host_gives_back_at_once(db: Database, database_url: str) -> None:
    type_ = a_type()
    worker, started = hosted(database_url, type_)

    async def host() -> float:
        working = asyncio.create_task(worker.run_async())
        await started.wait()
        cancelled_at = monotonic()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return monotonic() - cancelled_at

    run_id = submit(db, type_)
    seconds = asyncio.run(host())

    assert seconds < 5, "not its grace of 30"
    # A claim that was on its way when the worker let go may have brought it back once more.
    assert events_of(db, run_id)[-1] == "released"
    assert (status_of(db, run_id), column_of(db, run_id, "attempt")) == ("pending", 0)
