"""A service whose processes die, hang or cannot be started: it goes on, and its runs start again in time."""

from __future__ import annotations

import os
import resource
import signal
import sys
import uuid
from pathlib import Path
from time import monotonic

import pytest

from builders import Database, column_of, events_of, status_of, submit
from worker.stage import Notes, Program, children_of, ended, error_of, eventually, is_running

SECTION = "Death, pause, leases"
IMPATIENT = [sys.executable, "impatient.py"]
CRASHED = ["created", "leased", "expired", "leased", "succeeded"]
RECOVERY_SECONDS = 1.0  # P7


def held(db: Database, folder: Path, seconds: float = 60) -> tuple[str, int]:
    """Submit a run that sleeps in its first attempt; return its id and the process that holds it."""
    run_id = submit(db, "app.sleep.v1", {"seconds": seconds}, max_attempts=10)
    return run_id, int(Notes(folder).wait("sleep", run_id)[3])


# ── replaced in time ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "SIGKILL of the only worker process, five times", "P1, P7")
def test_the_run_of_an_only_process_that_is_killed_starts_again_within_a_second(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    seconds = []
    with Program(database_url, tmp_path) as program:
        for number in range(5):
            Notes(tmp_path).wait("loaded", count=number + 2)  # the spare has imported the module
            run_id, pid = held(db, tmp_path)

            killed_at = monotonic()
            os.kill(pid, signal.SIGKILL)
            Notes(tmp_path).wait("sleep", run_id, count=2)
            seconds.append(monotonic() - killed_at)

            assert ended(db, run_id) == "succeeded"
            assert events_of(db, run_id) == CRASHED
        assert program.log.count("starting another in 0.0 s") == 5, "it has worked: no back-off"
    assert max(seconds) < RECOVERY_SECONDS, seconds


@pytest.mark.fault(SECTION, "SIGKILL of the spare process, then of the one that works", "P1")
def test_a_service_whose_spare_was_killed_first_starts_a_new_process(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        Notes(tmp_path).wait("loaded", count=2)
        run_id, pid = held(db, tmp_path)
        [spare] = [child for child in program.children() if child != pid]

        os.kill(spare, signal.SIGKILL)
        eventually(lambda: "the spare worker process ended" in program.log)
        os.kill(pid, signal.SIGKILL)

        assert ended(db, run_id) == "succeeded"
        assert events_of(db, run_id) == CRASHED


@pytest.mark.fault(SECTION, "SIGKILL of the process of a module that can be there only once", "P1")
def test_a_module_that_can_be_imported_only_once_works_without_a_spare(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(
        database_url, tmp_path, target="hostile:worker", wf=IMPATIENT, ONLY_ONCE=f"wf-{uuid.uuid4()}"
    ) as program:
        run_id, pid = held(db, tmp_path)
        eventually(lambda: "the spare worker process ended" in program.log)

        os.kill(pid, signal.SIGKILL)

        assert ended(db, run_id) == "succeeded"
        assert events_of(db, run_id) == CRASHED


@pytest.mark.fault(SECTION, "a child hangs while starting", "P1")
def test_a_child_that_hangs_while_starting_is_killed_and_replaced(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(
        database_url, tmp_path, target="hostile:worker", wf=IMPATIENT, HANG_ONCE=str(tmp_path / "hung")
    ) as program:
        run_id = submit(db, "app.quick.v1")

        assert ended(db, run_id) == "succeeded"
        assert "it hangs while starting" in program.log
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]


@pytest.mark.fault(SECTION, "no descriptor is left for a new child, then there are some again", "P1")
def test_a_service_that_cannot_start_a_child_goes_on_and_starts_it_later(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, options=["--processes", "2"]) as program:
        first, second = program.started(2).children()
        survivor_run, survivor = held(db, tmp_path)
        victim = second if survivor == first else first
        limits = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        leased_until = column_of(db, survivor_run, "lease_until")
        eventually(
            lambda: column_of(db, survivor_run, "lease_until") != leased_until
        )  # its heart has a session

        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: "a worker process cannot be started" in program.log)
        assert status_of(db, survivor_run) == "leased"
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, limits)

        program.started(3)
        assert program.log.count("a worker process cannot be started") == 1, "one line per outage"
        assert events_of(db, survivor_run) == ["created", "leased"]
        assert is_running(survivor)


@pytest.mark.fault(SECTION, "SIGSTOP of the supervisor alone past the leases, then SIGCONT", "P1, P3")
def test_children_whose_supervisor_is_frozen_stop_their_handlers_before_the_leases_end(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, LEASE="1") as program:
        run_id, _ = held(db, tmp_path)
        os.kill(program.pid, signal.SIGSTOP)

        Notes(tmp_path).wait("cancelled", run_id)
        assert column_of(db, run_id, "status") in ("leased", "pending")
        os.kill(program.pid, signal.SIGCONT)

        assert ended(db, run_id) == "succeeded"
        assert len(Notes(tmp_path).all("slept", run_id)) == 1


@pytest.mark.fault(SECTION, "SIGKILL of all processes of a service at once, as its host's loss", "P1, P7")
def test_the_runs_of_a_lost_host_start_elsewhere_within_a_lease_and_a_second(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, LEASE="1") as lost:
        run_id, _ = held(db, tmp_path)
        with Program(database_url, tmp_path, LEASE="1", POLL="60") as other:
            other.started()

            os.killpg(lost.pid, signal.SIGKILL)
            killed_at = monotonic()
            Notes(tmp_path).wait("sleep", run_id, count=2)

            assert monotonic() - killed_at < 1 + 1
            assert ended(db, run_id) == "succeeded"
    assert events_of(db, run_id) == CRASHED


# ── handlers' own processes ────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "a handler's own process hangs while it imports the handler", "P1, P4")
def test_a_process_that_hangs_in_its_import_costs_an_attempt_and_not_its_place(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(
        database_url, tmp_path, target="hanging:worker", HANG_ONCE=str(tmp_path / "hung"), READY="3"
    ):
        run_id = submit(db, "hanging.cpu.v1")

        assert ended(db, run_id) == "succeeded", error_of(db, run_id)

    assert events_of(db, run_id) == ["created", "leased", "retried", "leased", "succeeded"]
    assert "did not start within 3 s" in error_of_event(db, run_id)


def error_of_event(db: Database, run_id: str) -> str:
    """Return what the event of the failed attempt says."""
    row = db.execute(
        "select data ->> 'error' from workflow_event where workflow_id = %s and event_type = 'retried'",
        [run_id],
    ).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.fault(
    SECTION, "a thread that a handler's process has left behind speaks during the next run", "P2, P3"
)
def test_what_a_thread_says_after_its_handler_has_returned_is_not_taken_for_the_next_runs(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker", CONCURRENCY="1"):
        left = submit(db, "hostile.cpu.v1", "leave_a_thread")
        talks = [submit(db, "hostile.cpu.v1", "talk") for _ in range(3)]

        assert [ended(db, run_id) for run_id in (left, *talks)] == ["succeeded"] * 4

        Notes(tmp_path).wait("left-thread-refused", left)
    assert [column_of(db, run_id, "attempt") for run_id in (left, *talks)] == [1] * 4


@pytest.mark.fault(SECTION, "SIGKILL of a worker process while a handler computes in its own", "P1, P3")
def test_a_handlers_own_process_does_not_outlive_its_worker(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker", options=["--processes", "2"]) as program:
        run_id = submit(db, "hostile.cpu.v1", "compute")
        computing = int(Notes(tmp_path).wait("hostile", run_id)[3])
        [worker] = [child for child in program.children() if computing in children_of(child)]

        os.kill(worker, signal.SIGKILL)

        eventually(lambda: not is_running(computing), seconds=2)
        assert ended(db, run_id) == "succeeded"
    assert events_of(db, run_id) == CRASHED
