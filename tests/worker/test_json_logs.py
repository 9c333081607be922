"""``wf worker --log-format json``: every line is an object, and tells of which run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from builders import Database, submit, submit_many
from simpleworkflow import NewRun
from worker.stage import Program, ended, eventually


@pytest.fixture(scope="module")
def program(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("logs")
    options = ["--log-format", "json"]
    with Program(module_url, folder, target="logging_app:worker", options=options) as program:
        yield program.started()


def lines(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.log.splitlines()]


def line(program: Program, message: str) -> dict[str, Any]:
    """Wait for the line that says so."""
    return eventually(lambda: next((one for one in lines(program) if one["message"] == message), None))


def run_of(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("run_id", "type", "attempt", "runs") if name in line}


def test_the_workers_own_lines_are_objects_with_time_level_logger_and_message(program: Program) -> None:
    first = lines(program)[0]

    assert list(first) == ["time", "level", "logger", "process", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert (first["level"], first["logger"]) == ("INFO", "simpleworkflow.worker")


def test_what_a_handler_logs_tells_its_run_from_its_tasks_too(program: Program, module_db: Database) -> None:
    run_id = submit(module_db, "log.async.v1")

    found = line(program, "on the loop,\nwith ünïcode")

    assert run_of(found) == {"run_id": run_id, "type": "log.async.v1", "attempt": 1}
    assert "secret-payload" not in program.log


def test_what_a_handler_in_a_thread_logs_tells_its_run_and_the_traceback(
    program: Program, module_db: Database
) -> None:
    run_id = submit(module_db, "log.thread.v1")

    found = line(program, "in a thread")

    assert run_of(found) == {"run_id": run_id, "type": "log.thread.v1", "attempt": 1}
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: as it happens")


def test_a_batch_tells_its_type_and_its_size(program: Program, module_db: Database) -> None:
    submit_many(module_db, [NewRun(type="log.batch.v1") for _ in range(5)])

    found = run_of(eventually(lambda: next((one for one in lines(program) if one.get("runs", 0) > 1), None)))

    assert set(found) == {"type", "runs"}
    assert found["type"] == "log.batch.v1"


def test_warnings_are_lines_and_the_next_run_does_not_inherit_the_fields(
    program: Program, module_db: Database
) -> None:
    first, second = submit(module_db, "log.after.v1"), submit(module_db, "log.thread.v1")
    for run_id in (first, second):
        assert ended(module_db, run_id) == "succeeded"

    eventually(lambda: any("a warning" in one["message"] for one in lines(program)))
    assert line(program, "at last")["run_id"] == first
    threads = [one["run_id"] for one in lines(program) if one["message"] == "in a thread"]
    assert threads[-1] == second
