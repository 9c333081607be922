"""Behind PgBouncer in transaction mode: no session of our own, no wake-ups, and everything works."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from builders import Database, column_of, count, status_of, submit
from cli.programs import WF
from faults.load import TYPE, Executions, Producers, agree, drained, working
from faults.pooler import PgBouncer, pgbouncer
from faults.servers import OwnServer
from simpleworkflow import AsyncClient, Client, NewRun, Worker
from simpleworkflow.dburl import parse
from worker.stage import Notes, Program, WorkerThread, ended, eventually

SECTION = "Database and network"
OURS = {
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "search_path",
    "statement_timeout",
    "transaction_timeout",
}


@pytest.fixture(autouse=True)
def _documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMPLEWORKFLOW_POOLER", "transaction")


@pytest.fixture
def server(own_server: OwnServer) -> OwnServer:
    return own_server


@pytest.fixture
def pooler(database_url: str) -> Iterator[PgBouncer]:
    with pgbouncer(database_url) as bouncer:
        yield bouncer


@pytest.fixture
def url(pooler: PgBouncer) -> str:
    return pooler.url


@pytest.mark.fault(SECTION, "PgBouncer in transaction mode: the verbs of the client", "P1, P9")
def test_the_sync_clients_verbs_work(url: str, db: Database) -> None:
    with working(url), Client(url, pool_size=3) as client:
        first = client.submit(TYPE, {"text": 'it\'s 100 % \\ "quoted"'}, idempotency_key="one")
        again = client.submit(TYPE, idempotency_key="one")
        later = client.submit(TYPE, delay=600)
        first_of_all = client.submit(TYPE, priority=-(2**31))
        many = client.submit_many([NewRun(type=TYPE, payload={"number": number}) for number in range(2500)])

        assert (first.created, again.created, again.id) == (True, False, first.id)
        assert first.wait(timeout=10).status == "succeeded"
        assert client.get(first.id).payload == {"text": 'it\'s 100 % \\ "quoted"'}
        assert client.get(first_of_all.id).priority == -(2**31)
        assert client.cancel(later.id)
        assert client.reopen(later.id)
        assert client.cancel(later.id, reason="it's over")
        assert [event.event_type for event in client.events(later.id)] == [
            "created",
            "cancelled",
            "reopened",
            "cancelled",
        ]
        assert client.wait(many[-1].id, timeout=20).status == "succeeded"
        assert len(client.list(limit=7).runs) == 7
        drained(db)

    assert count(db, "workflow_run", "status = 'succeeded'") == 2502


@pytest.mark.fault(SECTION, "PgBouncer in transaction mode: the verbs of the async client", "P1, P9")
def test_the_async_clients_verbs_work(url: str, db: Database) -> None:
    async def use() -> None:
        async with AsyncClient(url, pool_size=3) as client:
            handles = await asyncio.gather(*[client.submit(TYPE, {"number": number}) for number in range(50)])
            ran = await asyncio.gather(*[handle.wait(timeout=20) for handle in handles])
            assert {run.status for run in ran} == {"succeeded"}
            many = await client.submit_many([NewRun(type=TYPE) for _ in range(2500)])
            assert (await client.wait(many[-1].id, timeout=20)).status == "succeeded"
            later = await client.submit(TYPE, delay=600)
            assert await client.cancel(later.id)
            assert (await later.get()).status == "cancelled"

    with working(url):
        asyncio.run(use())
        drained(db)


@pytest.mark.fault(
    SECTION, "PgBouncer in transaction mode: retries, time-outs, cancels, heartbeats", "P3, P8"
)
def test_a_worker_retries_times_out_and_learns_of_cancels(url: str, db: Database) -> None:
    worker = Worker(lease_seconds=1, poll_seconds=0.2, database_url=url)
    cancelled: list[str] = []

    @worker.handler("pooled.retry.v1", backoff=0)
    async def retry(run: Any) -> int:
        if run.attempt < 3:
            raise ValueError("not yet: it's 100 %")
        return int(run.attempt)

    @worker.handler("pooled.slow.v1", timeout_seconds=0.3, max_attempts=1)
    async def slow(run: Any) -> None:
        await asyncio.sleep(60)

    @worker.handler("pooled.long.v1")
    async def long(run: Any) -> int:
        for _ in range(25):
            await run.heartbeat(2)
            await asyncio.sleep(0.1)
        return int(run.attempt)

    @worker.handler("pooled.cancelled.v1")
    async def wait_for_it(run: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(str(run.id))
            raise

    with WorkerThread(worker), Client(url) as client:
        retried, timed_out, long_one, unwanted = (
            str(client.submit(f"pooled.{kind}.v1").id) for kind in ("retry", "slow", "long", "cancelled")
        )
        eventually(lambda: status_of(db, unwanted) == "leased")
        assert client.cancel(unwanted)
        eventually(lambda: cancelled == [unwanted], seconds=2, what="a heartbeat that tells")
        assert ended(db, retried) == "succeeded"
        assert ended(db, timed_out) == "failed"
        assert ended(db, long_one) == "succeeded"
    assert column_of(db, long_one, "result") == 1
    assert column_of(db, retried, "result") == 3


@pytest.mark.fault(SECTION, "PgBouncer in transaction mode: SIGKILL of a worker process", "P2, P7")
def test_the_runs_of_a_killed_worker_come_back(url: str, db: Database, tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    with Program(url, tmp_path, LEASE="20") as program:
        program.started()
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        pid = int(notes.wait("sleep", run_id)[3])

        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        notes.wait("sleep", run_id, count=2, seconds=10)
        took = time.monotonic() - killed_at

        assert ended(db, run_id) == "succeeded"
    assert took < 5  # 1 s to take it, and the start of a process; the lease was 20
    assert column_of(db, run_id, "attempt") == 2


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.fault(SECTION, "PgBouncer restarted under load", "P1, P2")
def test_a_restarted_pooler_loses_nothing(how: str, pooler: PgBouncer, db: Database) -> None:
    with working(pooler.url) as executions, Producers(pooler.url) as producers:
        for _ in range(3):
            producers.progress(30)
            pooler.stop(signal.Signals[how])
            pooler.start()
        producers.progress(30)
        producers.stop()
        drained(db)

    agree(db, producers, executions)


@pytest.mark.parametrize("pool_size", [1, 2])
@pytest.mark.fault(SECTION, "PgBouncer whose pool is tiny, with twenty threads and two workers", "P1, P3")
def test_a_tiny_pool_is_enough(pool_size: int, database_url: str, db: Database) -> None:
    executions = Executions()

    def record_and_wait(number: int) -> str:
        return client.submit(TYPE, {"number": number}).wait(timeout=20).status

    with pgbouncer(database_url, pool_size=pool_size) as bouncer:
        url = bouncer.url
        with (
            working(url, executions=executions, lease_seconds=1),
            working(url, executions=executions, lease_seconds=1),
            Client(url, pool_size=20) as client,
            ThreadPoolExecutor(20) as threads,
        ):
            statuses = list(threads.map(record_and_wait, range(200)))

    assert statuses == ["succeeded"] * 200
    assert set(executions.counted.values()) == {1}
    assert count(db, "workflow_run", "attempt <> 1") == 0


@pytest.mark.parametrize("name", ["serializable", "repeatable read"])
@pytest.mark.fault(
    SECTION, "PgBouncer in front of a database whose default isolation is stricter", "P1, P2, P9"
)
def test_no_serialization_failure_reaches_a_client_or_a_handler(
    name: str, own_server: OwnServer, database_url: str, superuser: Database
) -> None:
    own_server.execute(f"alter database workflow set default_transaction_isolation = '{name}'")
    executions = Executions()

    def record(number: int) -> None:
        with Client(bouncer.url, pool_size=1) as client:
            client.submit(TYPE, idempotency_key=f"key-{number % 5}")
            client.submit_many([(TYPE, None)] * 3)
            handle = client.submit(TYPE)
            client.cancel(handle.id)
            client.reopen(handle.id)

    with (
        pgbouncer(database_url) as bouncer,
        working(bouncer.url, executions=executions, lease_seconds=1),
        working(bouncer.url, executions=executions, lease_seconds=1),
        ThreadPoolExecutor(10) as threads,
    ):
        list(threads.map(record, range(50)))
        drained(superuser)

    assert count(superuser, "workflow_run", "status = 'succeeded'") == 5 + 150 + 50


@pytest.mark.parametrize(
    "setting", ["statement_timeout = '1ms'", "lock_timeout = '1ms'", "default_transaction_deferrable = on"]
)
@pytest.mark.fault(SECTION, "PgBouncer and a role with a setting of its own", "P1, P3")
def test_what_a_role_is_set_to_disturbs_no_worker_behind_it(
    setting: str, own_server: OwnServer, database_url: str, superuser: Database
) -> None:
    own_server.execute(f"alter role workflow set {setting}")
    superuser.execute("insert into workflow_run (type) select %s from generate_series(1, 300)", [TYPE])

    with pgbouncer(database_url) as bouncer, working(bouncer.url, lease_seconds=1) as executions:
        drained(superuser)

    assert sum(executions.counted.values()) == 300
    own_server.execute("alter role workflow reset all")


@pytest.mark.fault(SECTION, "PgBouncer in transaction mode: the settings of a worker leak to nobody", "P1")
def test_nothing_that_we_set_is_left_on_a_servers_session(database_url: str) -> None:
    with pgbouncer(database_url, pool_size=1) as bouncer, working(bouncer.url), Client(bouncer.url) as client:
        client.submit(TYPE).wait(timeout=10)
        client.submit_many([(TYPE, None)] * 2500)

        place = parse(bouncer.url).conninfo
        with psycopg.connect(place, autocommit=True, prepare_threshold=None) as other:
            left = other.execute(
                "select name, setting from pg_settings where source = 'session' and name <> 'application_name'"
            ).fetchall()

    assert [one for one in left if one[0] in OURS] == []


@pytest.mark.fault(SECTION, "PgBouncer in transaction mode: the commands of wf", "P1")
def test_the_program_works_behind_it(url: str) -> None:
    recorded = wf(url, "submit", TYPE, "--json")
    run_id = json.loads(recorded)["id"]

    assert run_id in wf(url, "run", "list", "--json")
    assert run_id in wf(url, "run", "cancel", run_id)
    assert run_id in wf(url, "run", "show", run_id)
    assert run_id in wf(url, "run", "reopen", run_id)
    wf(url, "verify")
    wf(url, "migrate", "--check")
    wf(url, "psql", "-c", "select id from workflow.workflow_migration", code=1)


def wf(url: str, *arguments: str, code: int = 0) -> str:
    """Run the real program; return what it printed."""
    ended = subprocess.run(
        [WF, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"DATABASE_URL": url},
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout
