"""Workers that die or freeze at a named point: between claim and handler, effect and finish, beat and beat."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic

import pytest

from builders import Database, column_of, count, events_of, submit
from simpleworkflow.errors import InvalidInput
from simpleworkflow.worker import failpoints
from worker.stage import Notes, Program, ended, error_of, eventually

SECTION = "Death, pause, leases"


def armed(url: str, folder: Path, points: str, **options: str) -> Program:
    """Return a program of its own that has started, with failpoints."""
    return Program(url, folder, is_script=True, SIMPLEWORKFLOW_FAILPOINTS=points, **options).started()


@pytest.mark.fault(SECTION, "SIGKILL between the claim and the finish", "P1, P2")
@pytest.mark.parametrize(("point", "executions"), [("claimed", 1), ("executed", 2), ("finishing", 2)])
def test_a_worker_killed_before_its_finish_is_committed_costs_one_attempt(
    point: str, executions: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with armed(database_url, tmp_path, f"{point}=kill") as program:
        run_id = submit(db, "app.quick.v1")
        assert program.exit_code() == -signal.SIGKILL

    with Program(database_url, tmp_path, is_script=True):
        assert ended(db, run_id) == "succeeded"

    assert column_of(db, run_id, "result") == 2, "the second execution sees attempt 2"
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]
    assert len(Notes(tmp_path).all("quick", run_id)) == executions


@pytest.mark.fault(SECTION, "SIGKILL after the finish's commit", "P2, P5")
def test_a_worker_killed_after_its_finish_was_committed_is_not_missed(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with armed(database_url, tmp_path, "finished=kill") as program:
        run_id = submit(db, "app.quick.v1")
        assert program.exit_code() == -signal.SIGKILL

    with Program(database_url, tmp_path, is_script=True):
        assert ended(db, submit(db, "app.quick.v1")) == "succeeded"

    assert column_of(db, run_id, "result") == 1
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]
    assert len(Notes(tmp_path).all("quick", run_id)) == 1


@pytest.mark.fault(SECTION, "SIGKILL of every process that claims the run, before its handler", "P4")
def test_a_run_whose_every_claim_kills_its_process_ends_after_its_attempts(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, SIMPLEWORKFLOW_FAILPOINTS="claimed=kill") as program:
        run_id = submit(db, "app.quick.v1", max_attempts=3)

        assert ended(db, run_id) == "failed"
        assert program.process.poll() is None

    assert events_of(db, run_id) == ["created", *["leased", "expired"] * 3]
    assert "died" in error_of(db, run_id)
    assert Notes(tmp_path).all("quick", run_id) == []


@pytest.mark.fault(
    SECTION, "SIGSTOP between the effect and the finish, past the lease, then SIGCONT", "P2, P3"
)
def test_a_result_that_was_frozen_past_its_lease_is_refused_and_reported(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with armed(database_url, tmp_path, "finishing@1=stop", LEASE="1") as zombie:
        run_id = submit(db, "app.quick.v1")
        eventually(lambda: "failpoint finishing: stop" in zombie.log)
        # Not before: while it starts it may be the first to claim the run.
        with Program(database_url, tmp_path, is_script=True, LEASE="1", POLL="60") as other:
            other.started()
            assert ended(db, run_id) == "succeeded"

            zombie.process.send_signal(signal.SIGCONT)

            eventually(lambda: "results refused" in zombie.log)
    assert column_of(db, run_id, "result") == 2
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]


@pytest.mark.fault(SECTION, "SIGKILL of a program's heart after the commit of each of its beats", "P3")
def test_a_worker_that_never_hears_of_its_extended_leases_stops_before_they_end(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with armed(database_url, tmp_path, "beaten=kill", LEASE="1") as program:
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})

        # The first attempt is cancelled by its own worker; the second, which does not sleep, succeeds.
        assert ended(db, run_id) == "succeeded"
        assert "leases that could not be extended in time" in program.log

    assert len(Notes(tmp_path).all("cancelled", run_id)) == 1
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]


@pytest.mark.fault(SECTION, "an error in the worker's own loop, its results not yet sent", "P1, P2")
def test_a_worker_whose_own_loop_fails_is_replaced(db: Database, database_url: str, tmp_path: Path) -> None:
    with Program(database_url, tmp_path, SIMPLEWORKFLOW_FAILPOINTS="finishing@3=raise") as program:
        run_ids = []
        for _ in range(4):
            run_ids.append(submit(db, "app.quick.v1"))
            assert ended(db, run_ids[-1]) == "succeeded"

        assert "failpoint finishing: raise" in program.log
    attempts = [column_of(db, run_id, "result") for run_id in run_ids]
    assert attempts == [1, 1, 2, 1]


@pytest.mark.fault(
    SECTION, "SIGKILL of a supervisor that is about to take the runs of a dead child", "P1, P7"
)
def test_a_service_that_dies_with_its_child_leaves_its_runs_to_their_leases(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, LEASE="1", SIMPLEWORKFLOW_FAILPOINTS="expiring=kill") as program:
        run_id = submit(db, "app.thread.v1", {"seconds": 60})
        child = int(Notes(tmp_path).wait("thread", run_id)[3])
        with Program(database_url, tmp_path, is_script=True, LEASE="1", POLL="60") as other:
            other.started()
            os.kill(child, signal.SIGKILL)
            killed_at = monotonic()
            assert program.exit_code() == -signal.SIGKILL

            Notes(tmp_path).wait("thread", run_id, count=2, seconds=1 + 1)
            print(f"started again after {monotonic() - killed_at:.2f} s")

            assert ended(db, run_id) == "succeeded"

    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]


def test_without_the_variable_no_point_is_armed(db: Database) -> None:
    for point in failpoints.POINTS:
        failpoints.hit(point)

    assert failpoints.parse("") == {}
    assert count(db, "workflow_run") == 0


@pytest.mark.parametrize("text", ["claimd=kill", "claimed", "claimed=explode", "claimed@x=kill"])
def test_a_failpoint_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="SIMPLEWORKFLOW_FAILPOINTS: expected POINT"):
        failpoints.parse(text)
