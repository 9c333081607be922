"""``wf worker``: processes that die, hang or cannot start, and the runs they held."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from builders import Database, column_of, events_of, status_of, submit
from worker.stage import WF, Notes, Program, ended, error_of, eventually, is_running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("supervisor")


@pytest.fixture(scope="module")
def supervisor(module_url: str, folder: Path) -> Iterator[Program]:
    """Two worker processes that the tests of this module share, and kill."""
    with Program(module_url, folder, options=["--processes", "2", "--concurrency", "8"]) as program:
        yield program.started(2)


@pytest.fixture
def notes(folder: Path) -> Notes:
    return Notes(folder)


def whole(supervisor: Program) -> list[int]:
    """Wait until both children live."""
    return eventually(lambda: pids if len(pids := supervisor.children()) == 2 else None)


# ── children that die ──────────────────────────────────────────────────────────────────────────────


def test_processes_says_how_many_workers_there_are(supervisor: Program) -> None:
    assert len(whole(supervisor)) == 2


@pytest.mark.fault(
    "Death, pause, leases", "SIGKILL of the process that holds a run, under a supervisor", "P1, P7"
)
def test_a_run_whose_process_was_killed_starts_again_within_a_second_or_so(
    supervisor: Program, module_db: Database, notes: Notes
) -> None:
    run_id = submit(module_db, "app.sleep.v1", {"seconds": 60})
    pid = int(notes.wait("sleep", run_id)[3])

    killed_at = monotonic()
    os.kill(pid, signal.SIGKILL)
    notes.wait("sleep", run_id, count=2)
    seconds = monotonic() - killed_at

    assert ended(module_db, run_id) == "succeeded"
    assert column_of(module_db, run_id, "attempt") == 2
    assert events_of(module_db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]
    assert seconds < 2, f"{seconds:.2f} s"  # 1 s on a quiet machine


@pytest.mark.fault("Death, pause, leases", "a handler calls os._exit", "P1, P4")
@pytest.mark.parametrize("code", [0, 1, 2, 4])
def test_a_handler_that_exits_the_process_kills_only_its_own(
    supervisor: Program, module_db: Database, code: int
) -> None:
    run_id = submit(module_db, "app.exit.v1", {"code": code})

    assert ended(module_db, run_id) == "succeeded"

    assert column_of(module_db, run_id, "result") == 2
    assert supervisor.process.poll() is None


@pytest.mark.fault("Death, pause, leases", "a handler that segfaults, max_attempts 3", "P4")
def test_a_handler_that_segfaults_ends_after_its_attempts_and_others_flow(
    supervisor: Program, module_db: Database, notes: Notes
) -> None:
    poison = submit(module_db, "app.segfault.v1", max_attempts=3)
    others = [submit(module_db, "app.quick.v1", max_attempts=10) for _ in range(20)]

    assert ended(module_db, poison, seconds=30) == "failed"

    assert len(notes.all("segfault", poison)) == 3
    assert events_of(module_db, poison) == ["created", *["leased", "expired"] * 3]
    assert "died" in error_of(module_db, poison)
    assert {ended(module_db, run_id) for run_id in others} == {"succeeded"}


@pytest.mark.fault(
    "Death, pause, leases", "a worker dies whose service was started with SIGCHLD ignored", "P1"
)
def test_how_a_child_ended_is_told_though_sigchld_was_ignored(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    ignore = (
        "import os, sys; from signal import *; signal(SIGCHLD, SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    ignoring = (sys.executable, "-c", ignore, WF)
    with Program(database_url, tmp_path, wf=ignoring) as program:
        program.started()
        run_id = submit(db, "app.segfault.v1", max_attempts=1)

        assert ended(db, run_id) == "failed"

        eventually(lambda: "ended (killed by SIGSEGV)" in program.log, what=program.log)


@pytest.mark.fault("Death, pause, leases", "an async handler blocks the loop past its time-out", "P4, P7")
def test_a_blocked_loop_past_its_time_out_is_killed_and_replaced(
    supervisor: Program, module_db: Database
) -> None:
    run_id = submit(module_db, "app.overrun.v1")

    assert ended(module_db, run_id) == "succeeded"

    assert column_of(module_db, run_id, "result") == 2
    assert "overran its time-out" in supervisor.log


# ── leases ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(
    "Death, pause, leases", "handlers block the loop, and hold the GIL, for three leases", "P3"
)
def test_handlers_that_nothing_can_interrupt_keep_their_leases_for_three_of_them(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(
        database_url, tmp_path, options=["--processes", "2", "--concurrency", "1"], LEASE="1"
    ) as program:
        program.started(2)
        run_ids = [submit(db, f"app.{kind}.v1", {"seconds": 3.1}) for kind in ("block", "gil")]

        assert [ended(db, run_id) for run_id in run_ids] == ["succeeded", "succeeded"]

    assert [events_of(db, run_id) for run_id in run_ids] == [["created", "leased", "succeeded"]] * 2


# ── programs that cannot start ─────────────────────────────────────────────────────────────────────


def refused(program: Program) -> tuple[int, list[str]]:
    code = program.exit_code()
    return code, program.log.splitlines()


@pytest.mark.fault(
    "Shutdown, deploys, migrations", "a service is started with a target that names no worker", "P11"
)
@pytest.mark.parametrize("target", ["apps:nothing", "apps:missing", "no_such_module:worker"])
def test_a_target_that_names_no_worker_ends_with_code_2_and_one_line(
    target: str, module_url: str, tmp_path: Path
) -> None:
    program = Program(module_url, tmp_path, target=target, options=["--processes", "3"])

    code, lines = refused(program)

    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("wf: error: worker '")


def test_a_missing_schema_ends_with_code_4_and_one_line(module_url: str, tmp_path: Path) -> None:
    program = Program(
        module_url.replace("schema=test_", "schema=none_"), tmp_path, options=["--processes", "2"]
    )

    code, lines = refused(program)

    assert code == 4
    assert len(lines) == 1, lines
    assert "wf migrate" in lines[0]


@pytest.mark.fault("Death, pause, leases", "a module that exits while it is imported, at every start", "P7")
def test_a_module_that_crashes_is_started_again_ever_more_slowly(module_url: str, tmp_path: Path) -> None:
    with Program(module_url, tmp_path, CRASH="3") as program:
        Notes(tmp_path).wait("crash", count=4, seconds=20)

        assert "exit code 3" in program.log
        assert "starting another in 0.4 s" in program.log
        stopped_at = program.signal(signal.SIGTERM)
        assert program.exit_code() == 0
        assert monotonic() - stopped_at < 3


@pytest.mark.fault("Death, pause, leases", "twelve children die in a row", "P7")
def test_descriptors_and_dead_children_do_not_pile_up_over_restarts(module_url: str, tmp_path: Path) -> None:
    with Program(module_url, tmp_path, options=["--processes", "4"], CRASH="3") as program:
        Notes(tmp_path).wait("crash", count=4)
        before = len(os.listdir(f"/proc/{program.pid}/fd"))

        Notes(tmp_path).wait("crash", count=12, seconds=20)

        assert len(os.listdir(f"/proc/{program.pid}/fd")) <= before + 4
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        assert len(children) <= 4


@pytest.mark.fault("Shutdown, deploys, migrations", "a start-up hook raises, at every start", "P1")
def test_a_startup_hook_that_fails_ends_the_worker_with_a_clear_line(module_url: str, tmp_path: Path) -> None:
    with Program(module_url, tmp_path, STARTUP_ERROR="no model file") as program:
        eventually(lambda: "the start-up hook started raised ValueError: no model file" in program.log)

        assert "Traceback" not in program.log


def test_a_startup_hook_that_fails_ends_a_program_of_its_own(module_url: str, tmp_path: Path) -> None:
    with Program(module_url, tmp_path, is_script=True, STARTUP_ERROR="no model file") as program:
        assert program.exit_code() == 1

        assert "the start-up hook started raised ValueError: no model file" in program.log


# ── the supervisor's own end ───────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Death, pause, leases", "SIGKILL of the supervisor alone", "P1, P3")
@pytest.mark.parametrize("kind", ["sleep", "block"])
def test_children_of_a_killed_supervisor_are_gone_within_2_seconds(
    kind: str, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, options=["--processes", "2"], LEASE="3") as program:
        children = program.started(2).children()
        run_id = submit(db, f"app.{kind}.v1", {"seconds": 20})
        Notes(tmp_path).wait(kind, run_id)

        program.process.kill()

        eventually(lambda: not any(map(is_running, children)), seconds=2.5)
        if kind == "sleep":  # a loop that can act gives back what it holds
            assert status_of(db, run_id) == "pending"
            assert column_of(db, run_id, "attempt") == 0
