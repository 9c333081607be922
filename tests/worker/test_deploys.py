"""Deploys: services that replace each other under load, schemas of another version, handlers that come later."""

from __future__ import annotations

import math
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from builders import Database, column_of, count, events_of, status_of, submit, submit_many
from simpleworkflow import NewRun, Worker
from simpleworkflow.migrate import migrate
from simpleworkflow.sql import load_migrations
from worker.stage import Notes, Program, ended, eventually

SECTION = "Shutdown, deploys, migrations"
RUNS = 400


@pytest.mark.fault(SECTION, "rolling restart of services under load, three times", "P1, P2")
def test_a_rolling_restart_loses_nothing_and_costs_no_attempt(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    submit_many(db, [NewRun(type="app.sleep.v1", payload={"seconds": 0.1}) for _ in range(RUNS)])
    with ExitStack() as stack:

        def start() -> Program:
            options = ["--processes", "2", "--concurrency", "4"]
            return stack.enter_context(
                Program(database_url, tmp_path, options=options, GRACE="0.05")
            ).started(2)

        running = start()
        for _ in range(3):
            successor = start()
            running.signal(signal.SIGTERM)
            assert running.exit_code() == 0
            running = successor
        eventually(lambda: count(db, "workflow_run", "status = 'succeeded'") == RUNS, seconds=30)

    # No attempt was lost: whoever had to let go of a run before its end gave it back.
    assert count(db, "workflow_run", "attempt <> 1") == 0
    assert count(db, "workflow_event", "event_type in ('expired', 'retried', 'failed')") == 0
    claims = count(db, "workflow_event", "event_type = 'leased'")
    assert claims == RUNS + count(db, "workflow_event", "event_type = 'released'")
    executed = Counter(line[1:3] for line in Notes(tmp_path).all("sleep"))
    assert len({run_id for run_id, _ in executed}) == RUNS
    assert max(executed.values()) == 1, "one claim was executed twice"


@pytest.mark.fault(SECTION, "a worker meets a schema of another version", "P1")
@pytest.mark.parametrize("is_script", [False, True])
@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (
            "insert into workflow_migration (version, name, checksum) values (999, 'later', 'x')",
            "upgrade simpleworkflow",
        ),
        (
            "delete from workflow_migration where version = (select max(version) from workflow_migration)",
            "wf migrate",
        ),
    ],
    ids=["newer", "older"],
)
def test_a_worker_of_another_version_than_the_schema_refuses_to_start_with_the_remedy(
    change: str, remedy: str, is_script: bool, db: Database, database_url: str, tmp_path: Path
) -> None:
    run_id = submit(db, "app.quick.v1")
    db.execute(change.encode())

    with Program(database_url, tmp_path, is_script=is_script) as program:
        assert program.exit_code() == 4
        lines = program.log.splitlines()

    assert len(lines) == 1, lines
    assert remedy in lines[0]
    assert (status_of(db, run_id), column_of(db, run_id, "attempt")) == ("pending", 0)


@pytest.mark.fault(SECTION, "the schema becomes newer under a worker, which then dies", "P1")
def test_a_worker_that_runs_goes_on_when_its_schema_becomes_newer(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        program.started()
        db.execute("insert into workflow_migration (version, name, checksum) values (999, 'later', 'x')")

        assert ended(db, submit(db, "app.quick.v1")) == "succeeded"
        assert program.process.poll() is None


@pytest.mark.fault(SECTION, "five `migrate` while a worker works", "P1, P7")
def test_migrating_a_schema_that_is_at_work_and_up_to_date_disturbs_nobody(
    db: Database, database_url: str, connection: Any, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path) as program:
        program.started()
        run_ids = [submit(db, "app.sleep.v1", {"seconds": 0.3}) for _ in range(20)]

        assert [migrate(connection(), db.schema) for _ in range(5)] == [[]] * 5

        assert {ended(db, run_id) for run_id in run_ids} == {"succeeded"}
    assert count(db, "workflow_run", "attempt <> 1") == 0
    assert count(db, "workflow_migration") == len(load_migrations(db.schema))


@pytest.mark.fault(SECTION, "a run of a type that nobody handles; its handler is deployed later", "P1")
def test_a_run_without_a_handler_waits_untried_until_one_is_deployed(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    early = submit(db, "hostile.async.v1", "recur")
    with Program(database_url, tmp_path) as program:
        program.started()
        assert ended(db, submit(db, "app.quick.v1")) == "succeeded"  # it has looked for runs

        assert (status_of(db, early), column_of(db, early, "attempt")) == ("pending", 0)
        assert events_of(db, early) == ["created"]

    with Program(database_url, tmp_path, target="hostile:worker"):
        assert ended(db, early) == "succeeded"
    assert column_of(db, early, "attempt") == 2


@pytest.mark.fault(
    "Death, pause, leases", "a lease that no heartbeat could keep, asked for at start", "P3, P11"
)
@pytest.mark.parametrize("seconds", [0, -1, 0.5, math.nan, math.inf, 86_401, True, "30"])
def test_a_lease_that_cannot_be_kept_is_refused_at_start(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"lease_seconds: expected (1 to 86400|a number), got"):
        Worker(lease_seconds=seconds)


@pytest.mark.fault("Death, pause, leases", "a heartbeat for no time, less than none, or for ever", "P3, P11")
def test_a_heartbeat_of_no_length_fails_its_attempt_alone(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker"):
        run_ids = [submit(db, "hostile.wait.v1", seconds, max_attempts=1) for seconds in (0, -1, 1e300)]

        assert [ended(db, run_id) for run_id in run_ids] == ["failed"] * 3
    assert "expected seconds above 0" in column_of(db, run_ids[0], "last_error")
