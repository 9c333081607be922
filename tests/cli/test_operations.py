"""``wf run cancel --pattern`` and ``wf operation``: many runs at once, watched, stopped, and finished by others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builders import a_run, connect, count, submit_many
from simpleworkflow import Client
from simpleworkflow.model import NewRun
from waits import until

WF = str(Path(sys.executable).with_name("wf"))


@pytest.fixture
def many(database_url):
    """Three runs of a.v1 that wait, one that failed, and one of b.v1."""
    with connect(database_url) as db:
        submit_many(db, [NewRun(type="a.v1") for _ in range(3)])
        a_run(db, status="failed", type="a.v2")
        a_run(db, type="b.v1")
        yield db


def test_all_that_match_are_cancelled_without_a_worker(wf, many):
    dry = wf("run", "cancel", "--pattern", "a.%", "--dry-run")
    done = wf("run", "cancel", "--pattern", "a.%", "--reason", "ordered twice")

    assert (dry.code, dry.out) == (0, "would cancel 3 runs\n")
    assert (done.code, done.out) == (0, "cancelled 3 runs\n")
    assert count(many, "workflow_run", "status = 'cancelled'") == 3
    assert count(many, "workflow_event", "data ->> 'reason' = 'ordered twice'") == 3


def test_all_that_failed_are_reopened(wf, many):
    done = wf("run", "reopen", "--pattern", "%", "--status", "failed", "--reason", "mended", "--json")

    assert done.document["operation"]["changed"] == 1
    assert done.document["operation"]["state"] == "finished"
    assert count(many, "workflow_run", "status = 'failed'") == 0


def test_what_was_asked_for_is_listed_shown_and_stopped(wf, many):
    asked = wf("run", "cancel", "--pattern", "a.v1", "--reason", "why\x1b[2J", "--no-wait", "--json")
    operation_id = asked.document["operation"]["id"]

    assert operation_id in wf("operation", "list").out
    shown = wf("operation", "show", operation_id)
    stopped = wf("operation", "stop", operation_id)
    again = wf("operation", "stop", operation_id)

    assert "not counted yet" in shown.out
    assert "\x1b" not in shown.out
    assert (stopped.code, stopped.out.split(";")[0]) == (0, "cancelled 0 runs")
    assert (again.code, "nothing changed" in again.out) == (1, True)
    assert count(many, "workflow_run", "status = 'cancelled'") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "cancel"], "expected either ids of runs or --pattern"),
        (["run", "cancel", "01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00", "--dry-run"], "are for --pattern"),
        (["run", "cancel", "--pattern", "a.%"], "reason: expected why"),
        (["run", "cancel", "--pattern", "a b", "--reason", "x"], "pattern: expected a type"),
        (["run", "cancel", "--pattern", "%", "--status", "failed", "--reason", "x"], "--status"),
        (["operation", "show", "nothing"], "expected an operation's id (a UUID)"),
    ],
)
def test_what_cannot_be_is_one_line(wf, many, arguments, says):
    answer = wf(*arguments)

    assert answer.code == 2
    assert says in answer.err
    assert answer.err.count("\n") == 1


def test_an_operation_that_does_not_exist_is_said_so(wf):
    answer = wf("operation", "stop", "01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00")

    assert (answer.code, answer.err.count("\n")) == (5, 1)


@pytest.mark.fault("Concurrency", "whoever carries out an operation is killed in its middle", "P6")
def test_who_carries_it_out_is_killed_and_another_goes_on_and_no_run_is_cancelled_twice(database_url):
    with connect(database_url) as db, Client(database_url) as client:
        submit_many(db, [NewRun(type="a.v1") for _ in range(5000)])
        dying = subprocess.Popen(
            [WF, "run", "cancel", "--pattern", "a.%", "--reason", "a test"],
            env=os.environ | {"DATABASE_URL": database_url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: count(db, "workflow_run", "status = 'cancelled'") > 0, "its first chunk")
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        operation = client.operations()[0]
        assert operation.is_running

        taking_over = subprocess.run(
            [WF, "operation", "show", str(operation.id), "--watch", "--json"],
            env=os.environ | {"DATABASE_URL": database_url},
            capture_output=True,
            timeout=120,
            check=False,
        )

        assert taking_over.returncode == 0
        ended = client.operation(operation.id)
        assert (ended.state, ended.matched, ended.done, ended.changed) == ("finished", 5000, 5000, 5000)
        assert count(db, "workflow_event", "event_type = 'cancelled'") == 5000
        assert count(db, "workflow_run", "status = 'cancelled'") == 5000
