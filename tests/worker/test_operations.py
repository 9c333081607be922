"""Workers carry out operations, one at a time, and go on where one that was killed had come to."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from builders import Database, count, submit_many
from simpleworkflow import Client
from simpleworkflow.model import NewRun
from worker.stage import Program, eventually


@pytest.mark.fault("Death, pause, leases", "the worker that carries out an operation is killed", "P6")
def test_a_worker_that_carries_out_an_operation_is_killed_and_another_finishes_it(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    submit_many(db, [NewRun(type="others.v1") for _ in range(4000)])
    with Client(database_url) as client, Program(database_url, tmp_path) as first:
        operation = client.operate("cancel", patterns="others.%", reason="a test")
        eventually(lambda: client.operation(operation.id).changed > 0, seconds=30, what="its first chunk")

        os.killpg(first.pid, signal.SIGKILL)
        first.process.wait()
        assert client.operation(operation.id).is_running

        with Program(database_url, tmp_path):
            eventually(lambda: not client.operation(operation.id).is_running, seconds=60, what="its end")

        ended = client.operation(operation.id)
    assert (ended.state, ended.matched, ended.done, ended.changed) == ("finished", 4000, 4000, 4000)
    assert count(db, "workflow_event", "event_type = 'cancelled'") == 4000
    assert count(db, "workflow_event", "data ->> 'operation' = %s", str(operation.id)) == 4000


def test_a_worker_stops_carrying_out_what_is_stopped(db: Database, database_url: str, tmp_path: Path) -> None:
    submit_many(db, [NewRun(type="others.v1") for _ in range(4000)])
    with Client(database_url) as client, Program(database_url, tmp_path):
        operation = client.operate("cancel", patterns="others.%", reason="a test")
        eventually(lambda: client.operation(operation.id).changed > 0, seconds=30, what="its first chunk")

        assert client.stop_operation(operation.id)
        changed = client.operation(operation.id).changed
        second = client.operate("reopen", patterns="others.%", statuses="cancelled", reason="a test")
        eventually(lambda: not client.operation(second.id).is_running, seconds=60, what="the next")

        assert client.operation(operation.id).changed == changed < 4000
        assert client.operation(second.id).changed == changed
        assert count(db, "workflow_run", "status = 'pending'") == 4000
