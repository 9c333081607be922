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
@pytest.mark.parametrize("locking", ["select for update", "cancelling"])
def test_a_locked_row_holds_up_its_own_run_alone(
    locking: str, db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    lease_seconds = 4.0  # a claim or a finish waits for two seconds
    worker = Worker(
        lease_seconds=lease_seconds,
        poll_seconds=0.2,
        concurrency=20,
        database_url=database_url,
        grace_seconds=2,
    )
    lost: list[str] = []

    @worker.handler("short.run.v1")
    async def handle_short(run: Any) -> None:
        await asyncio.sleep(0.3)

    @worker.handler("long.run.v1")
    async def handle_long(run: Any) -> None:
        try:
            await asyncio.sleep(3 * lease_seconds if run.attempt == 1 else 0)
            await run.heartbeat(1)
        except asyncio.CancelledError:
            lost.append(str(run.id))
            raise

    with WorkerThread(worker):
        long_locked, *long = [submit(db, "long.run.v1") for _ in range(5)]
        short_locked, *short = [submit(db, "short.run.v1") for _ in range(10)]
        eventually(lambda: count(db, "workflow_run", "status = 'leased'") == 15)
        locker = connection()
        locker.execute("begin")
        locked = [long_locked, short_locked]
        if locking == "cancelling":
            locker.execute("select from cancel(%s::uuid[])", [locked])
        else:
            locker.execute("select from workflow_run where id = any (%s::uuid[]) for update", [locked])
        locked_at = monotonic()
        for run_id in short:  # whose ends came to the database together with that of the locked one
            assert ended(db, run_id, seconds=lease_seconds) == "succeeded"
        for _ in range(20):
            assert ended(db, submit(db, "short.run.v1"), seconds=2) == "succeeded"
        for run_id in long:
            assert ended(db, run_id, seconds=4 * lease_seconds) == "succeeded"
        assert monotonic() - locked_at > 2.5 * lease_seconds
        assert lost == [long_locked]
        locker.execute("rollback")
        for run_id in locked:
            assert ended(db, run_id) == "succeeded"

    assert count(db, "workflow_run", "attempt > 1 and id <> all (%s::uuid[])", locked) == 0


@pytest.mark.fault("Database and network", "locked rows in a batch that is refused as a whole", "P2, P3")
def test_locked_rows_in_a_refused_batch_hold_up_their_own_runs_alone(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    worker = Worker(lease_seconds=4, poll_seconds=0.2, database_url=database_url, grace_seconds=2)
    refused = submit(db, "batch.run.v1")
    db.execute(
        "create function refuse() returns trigger language plpgsql as "
        "$$ begin raise exception using errcode = '22000', message = 'not this one'; end $$"
    )
    db.execute(
        "create trigger refuse before update on workflow_run for each row "
        f"when (new.id = '{refused}' and new.status = 'succeeded') execute function refuse()".encode()
    )
    runs = [submit(db, "batch.run.v1") for _ in range(12)]
    locked, others = runs[::3], [one for at, one in enumerate(runs) if at % 3]

    @worker.handler("batch.run.v1")
    async def handle(run: Any) -> None:
        await asyncio.sleep(0.5)

    with WorkerThread(worker):
        eventually(lambda: count(db, "workflow_run", "status = 'leased'") == 13)
        locker = connection()
        with locker.transaction():
            locker.execute("select from workflow_run where id = any (%s::uuid[]) for update", [locked])
            for run_id in others:
                assert ended(db, run_id, seconds=6) == "succeeded"
            assert ended(db, refused, seconds=6) == "failed"
        for run_id in locked:
            assert ended(db, run_id) == "succeeded"

    assert count(db, "workflow_run", "attempt > 1") == 0


@pytest.mark.fault("Database and network", "a row locked in the moment that its slow claim commits", "P2, P3")
def test_a_row_that_is_locked_when_its_late_claim_comes_costs_no_attempt(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    lease_seconds, claim_seconds = 4.0, 1.5  # more than a third of the lease: the worker extends it at once
    db.execute(
        "create function be_slow() returns trigger language plpgsql as "
        f"$$ begin perform pg_sleep({claim_seconds}); return null; end $$".encode()
    )
    db.execute(
        "create trigger be_slow after update on workflow_run for each row "
        "when (new.status = 'leased' and old.status = 'pending') execute function be_slow()"
    )
    run_id = submit(db, TYPE, max_attempts=1)
    locker = connection()
    with working(database_url, lease_seconds=lease_seconds):
        claiming = "select from pg_stat_activity where wait_event = 'PgSleep' and query like '%exchange%'"
        eventually(lambda: db.execute(claiming.encode()).rowcount == 1)
        with locker.transaction():
            locker.execute("select from workflow_run where id = %s for update", [run_id])
            assert column_of(db, run_id, "status") == "leased", "the claim has just been committed"
            threading.Event().wait(0.5)
        assert ended(db, run_id) == "succeeded"


@pytest.mark.fault(
    "Shutdown, deploys, migrations", "the row of one of many runs locked at the stop", "P2, P3"
)
def test_a_locked_row_keeps_no_other_run_from_being_given_back(
    db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    worker = Worker(database_url=database_url, grace_seconds=0.1)

    @worker.handler("endless.run.v1")
    async def handle(run: Any) -> None:
        await asyncio.sleep(60)

    locked, *others = [submit(db, "endless.run.v1") for _ in range(5)]
    locker = connection()
    with WorkerThread(worker) as running:
        eventually(lambda: count(db, "workflow_run", "status = 'leased'") == 5)
        locker.execute("begin")
        locker.execute("select from workflow_run where id = %s for update", [locked])
        running.stop()
        for run_id in others:
            eventually(lambda run_id=run_id: column_of(db, run_id, "status") == "pending", seconds=3)
        locker.execute("commit")

    assert [column_of(db, run_id, "attempt") for run_id in (locked, *others)] == [0] * 5


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_handler_that_extends_its_lease_waits_for_who_has_locked_the_row(
    is_cancelled: bool, db: Database, database_url: str, connection: Callable[..., Database]
) -> None:
    worker = Worker(database_url=database_url)
    begun, may_beat, answers = threading.Event(), threading.Event(), []

    @worker.handler("beating.run.v1")
    def handle(run: Any) -> None:
        begun.set()
        assert may_beat.wait(10)
        answers.append(run.heartbeat(60))

    with WorkerThread(worker):
        run_id = submit(db, "beating.run.v1")
        assert begun.wait(10)
        locker = connection()
        with locker.transaction():
            if is_cancelled:
                locker.execute("select from cancel(array[%s::uuid])", [run_id])
            else:
                locker.execute("select from workflow_run where id = %s for update", [run_id])
            may_beat.set()
            threading.Event().wait(0.5)
            assert answers == []
        assert ended(db, run_id) == ("cancelled" if is_cancelled else "succeeded")
        eventually(lambda: answers == [not is_cancelled])


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
