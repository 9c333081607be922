"""Locks, maintenance and old snapshots beside a worker."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from builders import Database, column_of, count, events_of, submit
from faults.load import TYPE, Executions, Producers, agree, drained, working
from faults.servers import OwnServer
from simpleworkflow import Worker
from worker.stage import WorkerThread, ended, eventually

LEASE_SECONDS = 1.0
MAINTENANCE = (
    "vacuum full workflow_run",
    "vacuum full workflow_event",
    "vacuum (freeze, analyze) workflow_run",
    "reindex table concurrently workflow_run",
    "reindex table workflow_event",
    "cluster workflow_run using workflow_run_pkey",
    "analyze workflow_run",
)


@pytest.fixture
def server(own_server: OwnServer) -> OwnServer:
    return own_server


@pytest.mark.fault(
    "Database and network", "ACCESS EXCLUSIVE lock on workflow_run for three leases", "P2, P3, P4"
)
def test_a_locked_table_costs_the_leases_and_nothing_else(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    executions = Executions()
    cancelled: list[str] = []
    worker = Worker(lease_seconds=LEASE_SECONDS, poll_seconds=0.2, concurrency=5, database_url=database_url)

    @worker.handler("long.run.v1")
    async def handle(run: Any) -> int:
        executions.note(run)
        try:
            await asyncio.sleep(60 if run.attempt == 1 else 0)
        except asyncio.CancelledError:
            cancelled.append(str(run.id))
            raise
        return int(run.fencing_token)

    with WorkerThread(worker), working(database_url, lease_seconds=LEASE_SECONDS) as others:
        held = [submit(db, "long.run.v1") for _ in range(5)]
        eventually(lambda: len(executions.counted) == 5)
        locker = connection()
        with locker.transaction():
            locker.execute("lock table workflow_run in access exclusive mode")
            locked_at = monotonic()
            eventually(lambda: len(cancelled) == 5, seconds=LEASE_SECONDS + 1, what="self-fencing")
            # Runs whose only attempt a claim that nobody waits for any more would eat.
            sessions = []
            while monotonic() < locked_at + 3 * LEASE_SECONDS + 2:
                sessions.append(count(db, "pg_stat_activity", "application_name = 'simpleworkflow'"))
                threading.Event().wait(0.1)
            for _ in range(20):
                locker.execute("insert into workflow_run (type, max_attempts) values (%s, 1)", [TYPE])
        for run_id in held:
            assert ended(db, run_id) == "succeeded"
        drained(db)

    assert max(sessions) <= 2 * 6 + 2, sessions  # each worker's, and its heart's: none is left waiting behind
    assert count(db, "workflow_run", "type = %s and status = 'succeeded' and attempt = 1", TYPE) == 20
    assert len(others.counted) == 20
    for run_id in held:
        assert column_of(db, run_id, "attempt") == 2
        assert column_of(db, run_id, "result") == column_of(db, run_id, "fencing_token")
        assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]


@pytest.mark.fault(
    "Database and network", "a claim waits longer than its lease for the lock on workflow_run", "P2, P3, P4"
)
def test_a_claim_that_waited_longer_than_its_lease_costs_no_attempt(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    waits_long = (
        "select count(*) = 1 from pg_locks where not granted and relation = 'workflow_run'::regclass"
        " and waitstart < clock_timestamp() - %s * interval '1 second'"
    )
    with working(database_url, lease_seconds=LEASE_SECONDS, run_seconds=0.2) as executions:
        eventually(lambda: count(db, "workflow_registry", "workflow_name = %s", TYPE) == 1)
        locker = connection()
        with locker.transaction():
            locker.execute("lock table workflow_run in access exclusive mode")
            eventually(lambda: db.execute(waits_long.encode(), [1.2 * LEASE_SECONDS]).fetchone() == (True,))
            for _ in range(20):
                locker.execute("insert into workflow_run (type, max_attempts) values (%s, 1)", [TYPE])
        drained(db)

    assert count(db, "workflow_run", "status = 'succeeded'") == len(executions.counted) == 20


@pytest.mark.fault(
    "Database and network", "a lock on the table made the last look of an idle worker slow", "P7"
)
def test_a_look_that_a_lock_has_held_up_puts_off_no_other(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    worker = Worker(poll_seconds=1, database_url=database_url)

    @worker.handler("look.%")
    async def handle(run: Any) -> None: ...

    with WorkerThread(worker):
        assert ended(db, submit(db, "look.first.v1")) == "succeeded"
        locker = connection()
        with locker.transaction():
            locker.execute("lock table workflow_run in access exclusive mode")
            waiting = (
                "select count(*) from pg_locks where not granted and relation = 'workflow_run'::regclass"
            )
            eventually(lambda: db.execute(waiting.encode()).fetchone() != (0,))
            threading.Event().wait(
                3
            )  # four times as long is how long its next look may wait for what it has cost
        eventually(lambda: db.execute(waiting.encode()).fetchone() == (0,))

        for number in range(3):
            assert ended(db, submit(db, f"look.new{number}.v1"), seconds=5) == "succeeded"


@pytest.mark.fault("Database and network", "rows of leased runs locked by somebody's open transaction", "P3")
def test_a_locked_row_holds_up_its_own_run_alone(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    with working(database_url, lease_seconds=LEASE_SECONDS, run_seconds=0.2, concurrency=5):
        stuck = submit(db, TYPE)
        eventually(lambda: column_of(db, stuck, "status") == "leased")
        locker = connection()
        with locker.transaction():
            locker.execute("select from workflow_run where id = %s for update", [stuck])
            others = [submit(db, TYPE) for _ in range(20)]
            for run_id in others:
                assert ended(db, run_id, seconds=5) == "succeeded"
        assert ended(db, stuck) == "succeeded"


@pytest.mark.parametrize("statement", MAINTENANCE)
@pytest.mark.fault("Database and network", "maintenance under load", "P1, P2")
def test_maintenance_under_load_costs_nothing(statement: str, superuser: Database, database_url: str) -> None:
    with working(database_url) as executions, Producers(database_url) as producers:
        for _ in range(3):
            producers.progress(50)
            superuser.execute(statement.encode())
        producers.progress(50)
        producers.stop()
        drained(superuser)

    agree(superuser, producers, executions)
    assert count(superuser, "workflow_run", "attempt <> 1") == 0


@pytest.mark.fault("Database and network", "a snapshot held at some hundred runs a second", "P7")
def test_a_held_snapshot_does_not_stop_the_claims(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    seconds = float(os.environ.get("FAULTS_SNAPSHOT_SECONDS", "4"))
    holder = connection()
    with holder.transaction():
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from workflow_run")
        with (
            working(database_url) as executions,
            Producers(database_url, threads=4, pool_size=4, pause=0.01) as producers,
        ):
            until = monotonic() + seconds
            while monotonic() < until:
                producers.progress(20)
                last = submit(db, TYPE)
                ended(db, last, seconds=2)
                producers.recorded.append(last)
            producers.stop()
            drained(db)
            agree(db, producers, executions)
    assert len(executions.counted) / seconds > 50


@pytest.mark.fault("Database and network", "tables without statistics, beside a great backlog", "P7")
def test_without_statistics_claims_go_on(
    own_server: OwnServer, superuser: Database, db: Database, database_url: str
) -> None:
    own_server.execute("alter system set autovacuum = off")
    own_server.execute("select pg_reload_conf()")
    superuser.execute(
        "insert into workflow_run (type) select 'other.' || n % 50 from generate_series(1, 20000) as n"
    )
    superuser.execute("insert into workflow_run (type) select %s from generate_series(1, 2000)", [TYPE])
    superuser.execute(
        "delete from pg_statistic where starelid in ('workflow_run'::regclass, 'workflow_event'::regclass)"
    )

    with working(database_url) as executions:
        eventually(lambda: len(executions.counted) == 2000, seconds=15)
        eventually(lambda: count(db, "workflow_run", "status = 'succeeded'") == 2000)

    assert count(db, "workflow_run", "attempt > 1") == 0
