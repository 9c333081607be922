"""The demo: it shows what it promises, and leaves nothing running."""

from __future__ import annotations

import os
import signal

import pytest

from builders import connect
from cli.programs import WF, Spoken, command_line, processes_with, wait_for_end
from simpleworkflow.dburl import parse

PROMISED = [
    "basic   | Starting thumbnail worker...",
    "billing | Starting billing worker (handles all billing.* workflows)...",
    "video   | Starting video processing worker...",
    "notify  | Starting notification worker...",
    "basic   | Thumbnail completed for content img123",
    "billing | Invoice INV-001 generated successfully",
    "notify  | Push notification sent to user user123",
    "billing | Error: payment gateway timeout (will retry)",
    "billing | Payment PAY-001 processed successfully",
    "video   | Video processing completed for vid123",
    "video   | Video processing cancelled for vid456",
    "video   | Video processing completed for vid789",
]


@pytest.mark.slow
def test_the_demo_shows_everything_and_leaves_nothing_running(environment, empty_url):
    with Spoken([WF, "demo"], environment | {"DATABASE_URL": empty_url}) as demo:
        code = demo.process.wait(60)

    assert code == 0, demo.lines
    assert [line for line in PROMISED if line not in demo.lines] == []
    assert not any("Uploading video vid456" in line for line in demo.lines)
    trail = [line for line in demo.lines if line[:2].isdecimal() and line[2] == ":"]
    assert [line.split("  ")[0] for line in trail] == sorted(line.split("  ")[0] for line in trail)
    assert any("died during attempt 1; now pending" in line for line in trail)
    assert "attempt 2" in trail[-1]
    assert not any("\x1b" in line for line in demo.lines)
    assert processes_with(parse(empty_url).schema) == []
    with connect(empty_url) as db:
        assert db.execute("select count(*) from workflow_run where finished_at is null").fetchone() == (0,)


def test_a_demo_that_is_interrupted_leaves_nothing_running(environment, database_url, db):
    with Spoken([WF, "demo"], environment | {"DATABASE_URL": database_url}) as demo:
        demo.wait_for("Error: payment gateway timeout (will retry)")
        code = demo.end(signal.SIGINT)

    assert code == 130
    assert processes_with(parse(database_url).schema) == []
    assert db.execute("select count(*) from workflow_run where finished_at is null").fetchone() == (0,)


def test_a_demo_whose_worker_dies_says_so(environment, database_url):
    schema = parse(database_url).schema
    with Spoken([WF, "demo"], environment | {"DATABASE_URL": database_url}) as demo:
        demo.wait_for("Error: payment gateway timeout (will retry)")
        (billing,) = [pid for pid in processes_with(schema) if "billing_worker.py" in command_line(pid)]
        os.kill(billing, signal.SIGKILL)
        code = demo.process.wait(30)

    assert code == 1
    assert processes_with(schema) == []


def test_a_demo_that_is_killed_takes_its_workers_along(environment, database_url):
    with Spoken([WF, "demo"], environment | {"DATABASE_URL": database_url}) as demo:
        demo.wait_for("Error: payment gateway timeout (will retry)")
        pids = processes_with(parse(database_url).schema)
        demo.end(signal.SIGKILL)

        assert len(pids) > 5
        wait_for_end(pids)
