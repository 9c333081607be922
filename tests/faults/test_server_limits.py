"""A server, or a role, whose limits are in the way."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from builders import Database, column_of, count, events_of, status_of, submit
from faults.load import TYPE, Executions, Producers, agree, drained, outages, working
from faults.servers import OwnServer
from simpleworkflow import Client, DatabaseUnavailable, Worker, WorkflowRun
from simpleworkflow.database import connect, connect_async
from simpleworkflow.model import NewRun
from simpleworkflow.session import Session
from worker.stage import Program, WorkerThread, ended, eventually

LIMITS = {
    "statement-50ms": "statement_timeout = '50ms'",
    "statement-1ms": "statement_timeout = '1ms'",
    "lock-1ms": "lock_timeout = '1ms'",
    "idle-in-transaction-1ms": "idle_in_transaction_session_timeout = '1ms'",
    "idle-session-100ms": "idle_session_timeout = '100ms'",
    "serializable": "default_transaction_isolation = 'serializable'",
    "repeatable-read": "default_transaction_isolation = 'repeatable read'",
    "deferrable": "default_transaction_deferrable = on",
    "transaction-20ms": "transaction_timeout = '20ms'",
}


@pytest.fixture
def server(own_server: OwnServer) -> OwnServer:
    return own_server


@contextmanager
def no_room(server: OwnServer) -> Iterator[None]:
    """Take every connection that the server still gives to the application."""
    taken: list[psycopg.Connection[Any]] = []
    try:
        while True:
            try:
                taken.append(psycopg.connect(server.url, autocommit=True))
            except psycopg.OperationalError:
                break
        assert len(taken) > 10
        yield
    finally:
        for conn in taken:
            conn.close()


# ── connections ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Database and network", "max_connections reached while a long run executes", "P3")
def test_a_lease_is_kept_though_the_server_takes_no_new_session(
    own_server: OwnServer, db: Database, database_url: str
) -> None:
    worker = Worker(lease_seconds=1, poll_seconds=0.2, database_url=database_url)
    over = threading.Event()

    @worker.handler("long.run.v1")
    async def handle(run: Any) -> int:
        while not over.is_set():
            await asyncio.sleep(0.05)
        return int(run.attempt)

    with WorkerThread(worker):
        # The heart has its session before there is anything to extend.
        asked = "query like '%.heartbeat(%' and pid <> pg_backend_pid()"
        eventually(lambda: count(db, "pg_stat_activity", asked) > 0)
        with no_room(own_server):
            run_id = submit(db, "long.run.v1")
            eventually(lambda: status_of(db, run_id) == "leased")
            leased_until = column_of(db, run_id, "lease_until")
            eventually(
                lambda: (column_of(db, run_id, "lease_until") - leased_until).total_seconds() > 3, seconds=8
            )
            over.set()
            assert ended(db, run_id) == "succeeded"

    assert column_of(db, run_id, "result") == 1
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]


@pytest.mark.fault("Database and network", "max_connections reached at the start of a worker", "P1")
def test_a_worker_that_finds_no_room_at_its_start_waits_for_it(
    own_server: OwnServer, db: Database, database_url: str, tmp_path: Path
) -> None:
    run_id = submit(db, "app.quick.v1")

    with no_room(own_server):
        program = Program(database_url, tmp_path)
        eventually(lambda: "the database is away" in program.log, seconds=15)
        assert program.process.poll() is None
    with program:
        assert ended(db, run_id, seconds=10) == "succeeded"
        said = re.findall(r"\[(\d+)\]: the database is away.*: (.*)", program.log)

    # The supervisor says so too, if its heart has asked for a connection in that moment.
    assert 1 <= len(said) == len(dict(said)), program.log
    assert all("connection slots" in reason or "too many clients" in reason for _, reason in said)


@pytest.mark.fault("Database and network", "max_connections reached under load", "P1, P2")
def test_load_goes_on_with_the_sessions_that_are_there(
    own_server: OwnServer, db: Database, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with working(database_url) as executions, Producers(database_url) as producers:
        producers.progress()
        with no_room(own_server):
            producers.progress(100)
        producers.progress()
        producers.stop()
        drained(db)

    agree(db, producers, executions)
    assert producers.refused == []
    assert outages(caplog)[0] <= 1


@pytest.mark.fault("Database and network", "a client's pool of one connection, twenty threads", "P1")
def test_twenty_threads_share_one_connection(db: Database, database_url: str) -> None:
    def record_and_wait(number: int) -> str:
        handle = client.submit(TYPE, {"number": number})
        return handle.wait(timeout=20).status

    with (
        working(database_url, concurrency=1),
        Client(database_url, pool_size=1) as client,
        ThreadPoolExecutor(20) as threads,
    ):
        statuses = list(threads.map(record_and_wait, range(200)))

    assert statuses == ["succeeded"] * 200
    assert count(db, "workflow_run", "status = 'succeeded'") == 200


# ── roles ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.fault("Database and network", "a role with a setting of its own", "P1, P2, P3")
def test_what_a_role_is_set_to_disturbs_no_worker(
    name: str, own_server: OwnServer, superuser: Database, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name.startswith("transaction") and superuser.info.server_version < 170000:
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    with Producers(database_url) as producers:
        producers.progress(5)  # before: a client's time-outs are its role's own business
        own_server.execute(f"alter role workflow set {LIMITS[name]}")
        executions = Executions()
        with (
            working(database_url, executions=executions, lease_seconds=1),
            working(database_url, executions=executions, lease_seconds=1),
        ):
            producers.progress(200)
            producers.stop()
            drained(superuser)
    own_server.execute("alter role workflow reset all")

    agree(superuser, producers, executions)
    assert outages(caplog) == (0, 0)


async def _connect_async(url: str, session: Session) -> str:
    conn = await connect_async(url, session=session)
    async with conn:
        rows = await (await conn.execute("show statement_timeout")).fetchall()
    return str(rows[0][0])


def _connect(url: str, session: Session) -> str:
    with connect(url, session=session) as conn:
        return str(conn.execute("show statement_timeout").fetchall()[0][0])


@pytest.mark.parametrize(
    "opened", [_connect, lambda *said: asyncio.run(_connect_async(*said))], ids=["sync", "async"]
)
@pytest.mark.fault("Database and network", "a role's time-out ends the first words of a session", "P1")
def test_a_session_whose_beginning_is_canceled_begins_again(
    opened: Callable[[str, Session], str], own_server: OwnServer, superuser: Database, db: Database
) -> None:
    session = Session(is_pooled=False, statement_seconds=7, worker_id="someone")
    asked = "wait_event_type = 'Lock' and query like 'set statement_timeout%'"

    with ThreadPoolExecutor(1) as threads:
        with superuser.transaction():
            # What a session says at its beginning has a DO in it, and comes to wait here.
            superuser.execute("lock table pg_language in access exclusive mode")
            showing = threads.submit(opened, own_server.url, session)
            eventually(lambda: count(db, "pg_stat_activity", asked) == 1)
            db.execute(f"select pg_cancel_backend(pid) from pg_stat_activity where {asked}")
        assert showing.result(10) == "7s"


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
@pytest.mark.fault(
    "Database and network", "clients of a database whose default isolation is stricter", "P1, P9"
)
def test_clients_meet_no_serialization_failure(
    level: str, own_server: OwnServer, superuser: Database, database_url: str
) -> None:
    own_server.execute(f"alter database workflow set default_transaction_isolation = '{level}'")

    def record(number: int) -> list[bool]:
        with Client(database_url, pool_size=1) as client:
            key = f"key-{number % 5}"
            created = [client.submit(TYPE, idempotency_key=key).created]
            created += [one.created for one in client.submit_many([(TYPE, None)] * 3)]
            run = client.submit(TYPE)
            client.cancel(run.id)
            client.reopen(run.id)
            return created

    executions = Executions()
    with working(database_url, executions=executions), working(database_url, executions=executions):
        with ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(record, range(50)))
        drained(superuser)

    assert sum(answer[0] for answer in answers) == 5
    assert count(superuser, "workflow_run", "status = 'succeeded'") == 5 + 150 + 50


@pytest.mark.parametrize(
    "setting", ["array_nulls = off", "datestyle = 'German, DMY'", "client_encoding = 'latin1'"]
)
@pytest.mark.fault(
    "Database and network", "a role that writes arrays, times or characters in another way", "P1, P11"
)
def test_however_a_role_writes_values_runs_are_recorded_executed_and_read(
    setting: str, own_server: OwnServer, superuser: Database, database_url: str
) -> None:
    own_server.execute(f"alter role workflow set {setting}")
    worker = Worker(database_url=database_url, poll_seconds=0.2)

    @worker.handler("texts.read.v1")
    async def read(run: WorkflowRun) -> Any:
        return [run.payload, run.created_at.isoformat()] if run.payload else None

    payloads = ["\u20ac", None, None, "NULL"]
    keys = [None, None, "a key", None]
    try:
        with Client(database_url) as client:
            news = [
                NewRun(type="texts.read.v1", payload=one, idempotency_key=key)
                for one, key in zip(payloads, keys, strict=True)
            ]
            handles = client.submit_many(news)
            with WorkerThread(worker):
                runs = [handle.wait(20) for handle in handles]
    finally:
        own_server.execute("alter role workflow reset all")

    assert [handle.created for handle in handles] == [True] * 4
    assert [run.result for run in runs] == [
        [payload, run.created_at.isoformat()] if payload else None
        for payload, run in zip(payloads, runs, strict=True)
    ]
    ends = "status = 'succeeded' and attempt = 1 and last_error is null"
    assert count(superuser, "workflow_run", ends) == 4


@pytest.mark.fault("Database and network", "a role whose transactions are read-only, then not", "P1")
def test_a_read_only_role_is_told_and_everything_resumes(
    own_server: OwnServer, superuser: Database, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.execute("alter role workflow set default_transaction_read_only = on")
    # As the superuser, who is still allowed to.
    superuser.execute("insert into workflow_run (type) values (%s)", [TYPE])

    with working(database_url):
        eventually(lambda: outages(caplog)[0] == 1)
        with (
            Client(database_url) as client,
            pytest.raises(DatabaseUnavailable, match="is read-only; name its primary"),
        ):
            client.submit(TYPE)
        assert count(superuser, "workflow_run", "attempt > 0") == 0
        own_server.execute("alter role workflow reset default_transaction_read_only")
        drained(superuser)

    assert count(superuser, "workflow_run", "status = 'succeeded'") == 1
    assert outages(caplog) == (1, 1)
