"""Many at once: workers on one table, idle workers and one insert, waiters on one run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from builders import Database, a_type, ask, claim, connect, count, finish, submit, submit_many
from faults.proxy import Proxy
from simpleworkflow import AsyncClient, Worker, statements
from simpleworkflow.model import NewRun
from worker.stage import WorkerThread, ended, eventually

CONCURRENCY = "Concurrency"
CLAIMERS = int(os.environ.get("CROWD_CLAIMERS", "25"))
RUNS = int(os.environ.get("CROWD_RUNS", "2000"))
WAITERS = 2000
IDLE = 12


@pytest.mark.fault(CONCURRENCY, "many workers on one table: each claim is executed once", "P2, P3")
def test_a_crowd_of_workers_executes_each_claim_once(db: Database, database_url: str) -> None:
    type_ = a_type()
    submit_many(db, [NewRun(type=type_) for _ in range(RUNS)])
    executed: Counter[tuple[str, int]] = Counter()
    lock = threading.Lock()

    def work(number: int) -> None:
        worker = f"worker {number}"
        with connect(database_url) as mine:
            ended: list[statements.Finished] = []
            while True:
                got = ask(mine, statements.exchange(worker, ended, [type_], limit=7, lease_seconds=60))
                with lock:
                    executed.update((one.id, one.fencing_token) for one in got.claimed)
                if not got.claimed:
                    return
                ended = [statements.Finished(one.id, one.fencing_token, "succeeded") for one in got.claimed]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLAIMERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert len(executed) == RUNS
    assert set(executed.values()) == {1}
    assert count(db, "workflow_run", "status = 'succeeded' and attempt = 1 and fencing_token = 1") == RUNS


@pytest.mark.fault(CONCURRENCY, "one insert among idle workers: a few of them claim", "P7")
def test_one_insert_wakes_a_few_of_many_idle_workers(db: Database, database_url: str) -> None:
    type_ = a_type()

    def a_worker(url: str) -> Worker:
        worker = Worker(poll_seconds=60, lease_seconds=60, database_url=url)

        @worker.handler(type_)
        async def handle(run: Any) -> None: ...

        return worker

    with Proxy(database_url) as proxy, ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(WorkerThread(a_worker(proxy.url)))
        proxy.wait_for(r"\.exchange\(", count=IDLE, seconds=30)
        eventually(lambda: _is_quiet(proxy), seconds=30, every=0.5, what="all workers are idle")
        before = proxy.count(r"\.exchange\(")

        run_id = submit(db, type_)
        assert ended(db, run_id) == "succeeded"
        eventually(lambda: _is_quiet(proxy), seconds=30, every=0.5, what="all workers are idle again")

        # Who holds the lock claims, finishes with the next claim, and finds nothing more; another may have got
        # the lock meanwhile and looks too.
        assert proxy.count(r"\.exchange\(") - before <= 6


def _is_quiet(proxy: Proxy) -> bool:
    """Return whether no exchange was seen for a while."""
    seen = proxy.count(r"\.exchange\(")
    threading.Event().wait(0.4)
    return proxy.count(r"\.exchange\(") == seen


@pytest.mark.fault(
    CONCURRENCY, "2,000 waiters on one run return within a second, over a few connections", "P7"
)
def test_two_thousand_waiters_return_within_a_second_of_the_end(db: Database, database_url: str) -> None:
    run_id = submit(db, type_ := a_type())
    held = claim(db, pattern=type_)
    assert held is not None

    seconds, sessions = asyncio.run(_wait_in_a_crowd(db, database_url, run_id, lambda: finish(db, held)))

    print(f"{seconds:.2f} s")
    assert seconds < 1.0, f"{seconds:.2f} s"
    assert sessions <= 100  # also those of others, on a server that is shared


async def _wait_in_a_crowd(db: Database, url: str, run_id: str, end: Any) -> tuple[float, int]:
    async with AsyncClient(url) as client:
        waiting = [asyncio.create_task(client.wait(run_id, timeout=60)) for _ in range(WAITERS)]
        await asyncio.sleep(1)  # all of them have asked
        assert not any(task.done() for task in waiting)
        sessions = count(db, "pg_stat_activity", "usename = current_user and datname = current_database()")
        started = monotonic()
        assert await asyncio.to_thread(end)
        runs = await asyncio.gather(*waiting)
        seconds = monotonic() - started
    assert {run.status for run in runs} == {"succeeded"}
    return seconds, sessions
