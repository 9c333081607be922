"""Waiting for runs: many may, one looks, and a broken connection ends no wait."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from builders import Database, a_held_run, a_run, cancel, finish
from client.sessions import kill_sessions, sessions
from faults.proxy import Proxy
from simpleworkflow import AsyncClient, Client, DatabaseUnavailable, InvalidInput, RunNotFound, WaitTimeout


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_waiting_for_a_run_that_has_ended_returns_it(client: Any, db: Database, status: str) -> None:
    run_id = a_run(db, status=status)

    assert client.wait(run_id, timeout=10).status == status
    assert client.wait(run_id, timeout=0).status == status
    assert client.wait(run_id).status == status


@pytest.mark.parametrize("timeout", [0, 0.001, 0.1])
def test_a_wait_ends_with_its_time_out_and_the_run_goes_on(client: Any, db: Database, timeout: float) -> None:
    run_id = a_run(db)

    with pytest.raises(WaitTimeout, match="did not end within") as caught:
        client.wait(run_id, timeout=timeout)

    assert caught.value.seconds == timeout
    assert client.get(run_id).status == "pending"


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", b"5"])
def test_a_time_out_is_a_number_of_seconds(client: Any, db: Database, timeout: Any) -> None:
    run_id = a_run(db)

    with pytest.raises(InvalidInput, match="timeout: expected seconds >= 0 or None"):
        client.wait(run_id, timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**9])
def test_a_time_out_may_be_as_long_as_one_likes(client: Any, db: Database, timeout: float) -> None:
    assert client.wait(a_run(db, status="failed"), timeout=timeout).status == "failed"


def test_two_hundred_threads_wait_with_one_query_and_all_return(database_url: str, db: Database) -> None:
    held = a_held_run(db)
    with Client(database_url, pool_size=3) as client, ThreadPoolExecutor(200) as threads:
        waits = [threads.submit(client.wait, held.id, 30) for _ in range(200)]
        until(lambda: waiters(client) == 200)
        connections = len(sessions(db))

        finish(db, held, result="done")
        ended = time.monotonic()
        results = [wait.result() for wait in waits]

    assert time.monotonic() - ended < 1
    assert [run.result for run in results] == ["done"] * 200
    assert connections <= 3


def test_two_thousand_tasks_wait_with_one_query_and_all_return(database_url: str, db: Database) -> None:
    held = a_held_run(db)

    async def story() -> tuple[list[Any], float, int]:
        async with AsyncClient(database_url, pool_size=3) as client:
            waits = [asyncio.create_task(client.wait(held.id, 30)) for _ in range(2000)]
            while waiters(client) < 2000:
                await asyncio.sleep(0)
            connections = len(sessions(db))
            await asyncio.to_thread(finish, db, held, result="done")
            ended = time.monotonic()
            return await asyncio.gather(*waits), time.monotonic() - ended, connections

    runs, seconds, connections = asyncio.run(story())

    assert [run.result for run in runs] == ["done"] * 2000
    assert seconds < 1
    assert connections <= 3


def test_those_who_wait_for_many_runs_each_get_their_own(database_url: str, db: Database) -> None:
    run_ids = [a_run(db) for _ in range(120)]

    async def story() -> list[Any]:
        async with AsyncClient(database_url) as client:
            waits = [asyncio.create_task(client.wait(run_id, 30)) for run_id in run_ids]
            for run_id in run_ids:
                await client.cancel(run_id)
            return await asyncio.gather(*waits)

    assert [str(run.id) for run in asyncio.run(story())] == run_ids


def test_a_wait_outlives_the_connections_that_look_for_it(database_url: str, db: Database) -> None:
    run_id = a_run(db)
    with Client(database_url) as client, ThreadPoolExecutor(1) as threads:
        client.get(run_id)  # a client that has never reached its database does not begin to wait
        wait = threads.submit(client.wait, run_id, 30)
        for _ in range(3):
            until(lambda: kill_sessions(db) > 0)
        cancel(db, run_id)

        assert wait.result(10).status == "cancelled"


@pytest.mark.fault("Database and network", "the database is away while a client waits for a run", "P7")
def test_a_wait_that_ended_without_the_database_says_so(
    open_client: Any, database_url: str, db: Database
) -> None:
    run_id = a_run(db)
    with Proxy(database_url) as proxy:
        client = open_client(proxy.url)
        client.list()
        proxy.refuse()
        proxy.reset()
        with pytest.raises(WaitTimeout) as caught:
            client.wait(run_id, timeout=2)

    assert isinstance(caught.value.__cause__, DatabaseUnavailable)


def test_one_who_gives_up_does_not_end_the_wait_of_another(database_url: str, db: Database) -> None:
    run_id = a_run(db)
    with Client(database_url) as client, ThreadPoolExecutor(2) as threads:
        patient = threads.submit(client.wait, run_id, 30)
        with pytest.raises(WaitTimeout):
            client.wait(run_id, timeout=0.05)
        cancel(db, run_id)

        assert patient.result(10).status == "cancelled"


def test_a_cancelled_task_leaves_and_nobody_looks_any_more(database_url: str, db: Database) -> None:
    run_id = a_run(db)

    async def story() -> Any:
        async with AsyncClient(database_url) as client:
            wait = asyncio.create_task(client.wait(run_id))
            while not waiters(client):
                await asyncio.sleep(0)
            wait.cancel()
            await asyncio.wait([wait])
            looker = client._waiting._looker
            assert looker is not None
            await asyncio.wait([looker], timeout=5)
            return looker.done(), waiters(client)

    assert asyncio.run(story()) == (True, 0)


def test_the_thread_that_looks_ends_with_the_last_wait(database_url: str, db: Database) -> None:
    run_id = a_run(db, status="failed")
    with Client(database_url) as client:
        client.wait(run_id, timeout=10)

        until(lambda: "simpleworkflow-wait" not in [thread.name for thread in threading.enumerate()])


def test_closing_the_client_ends_its_waits(database_url: str, db: Database) -> None:
    run_id = a_run(db)
    client = Client(database_url)
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(client.wait, run_id)
        until(lambda: waiters(client) == 1)
        client.close()

        with pytest.raises(DatabaseUnavailable, match="the client was closed"):
            wait.result(10)


def test_waiting_for_a_run_of_a_transaction_that_is_open_says_that_it_does_not_exist(
    database_url: str, db: Database
) -> None:
    with Client(database_url) as client, db.transaction():
        handle = client.submit("a.run.v1", conn=db)

        with pytest.raises(RunNotFound):
            handle.wait(timeout=10)


def test_a_client_can_wait_in_one_loop_after_another(database_url: str, db: Database) -> None:
    run_id = a_run(db, status="succeeded")
    client = AsyncClient(database_url)

    async def story() -> str:
        return (await client.wait(run_id, timeout=10)).status

    assert [asyncio.run(story()) for _ in range(3)] == ["succeeded"] * 3
    asyncio.run(client.close())


def waiters(client: Any) -> int:
    return sum(awaited.waiters for awaited in client._waiting._list._awaited.values())


def until(is_so: Any) -> None:
    """Return when something is so; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
