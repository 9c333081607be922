"""Tables that come back from an old backup, while a worker goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import (
    Database,
    a_run,
    ask,
    claim,
    column_of,
    count,
    events_of,
    expire,
    finish,
    heartbeat,
    held_by,
    lapse,
    status_of,
    submit,
)
from faults.load import TYPE, drained, working
from faults.servers import OwnServer
from simpleworkflow import statements
from worker.stage import ended


@pytest.fixture
def server(own_server: OwnServer) -> OwnServer:
    return own_server


def restore(server: OwnServer, superuser: Database, backup: Path) -> None:
    """Put the schema back to what it was."""
    superuser.execute(f"drop schema {superuser.schema} cascade".encode())
    server.run_client("pg_restore", str(backup))


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.mark.fault(
    "Database and network", "a table restored from an old backup with leased runs", "P1, P3, P5"
)
def test_the_leased_runs_of_an_old_backup_expire_and_go_on(
    own_server: OwnServer, superuser: Database, db: Database, database_url: str, backup: Path
) -> None:
    states = {status: a_run(db, status=status) for status in ("succeeded", "failed", "cancelled")}
    pending = submit(db, TYPE)
    zombie = claim(db, worker="zombie", pattern=TYPE)
    assert zombie is not None
    assert zombie.id == pending
    lapse(db, pending)
    own_server.run_client("pg_dump", "-Fc", "-n", superuser.schema, "-f", str(backup))

    # After the backup another one gets it, with the token that a third will have after the restore.
    expire(db)
    second = claim(db, worker="second", pattern=TYPE)
    assert second is not None
    lost = submit(db, TYPE)
    restore(own_server, superuser, backup)

    assert {status_of(db, run_id) for run_id in states.values()} == set(states)
    assert count(db, "workflow_run", "id = %s", lost) == 0
    assert expire(db) == {pending: "pending"}
    third = claim(db, worker="third", pattern=TYPE)
    assert third is not None
    assert third.fencing_token == second.fencing_token == zombie.fencing_token + 1
    for other in (zombie, second):
        assert not finish(db, other)
        assert heartbeat(db, other) == "lost"
    assert held_by(db, pending) == third
    assert finish(db, third)
    assert events_of(db, pending) == ["created", "leased", "expired", "leased", "succeeded"]
    assert column_of(db, pending, "attempt") == 2


@pytest.mark.fault(
    "Database and network", "the schema dropped and restored beside a running worker", "P1, P2"
)
def test_a_running_worker_goes_on_after_a_restore(
    own_server: OwnServer, superuser: Database, db: Database, database_url: str, backup: Path
) -> None:
    with working(database_url) as executions:
        before = submit(db, TYPE)
        assert ended(db, before) == "succeeded"
        later = submit(db, TYPE, delay=2)
        own_server.run_client("pg_dump", "-Fc", "-n", superuser.schema, "-f", str(backup))

        restore(own_server, superuser, backup)

        after = submit(db, TYPE)
        assert ended(db, after) == "succeeded"
        assert ended(db, later) == "succeeded"
        drained(superuser)

    assert executions.counted[before, 1] == 1
    assert ask(db, statements.verify(slack_seconds=5)) == []
    row = superuser.execute("select count(*), count(distinct id) from workflow_event").fetchone()
    assert row is not None
    assert row[0] == row[1]  # the sequence goes on where the backup ended
