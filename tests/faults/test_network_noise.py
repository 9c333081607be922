"""A network that works badly: slow, thin, and resetting connections at random under load."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from typing import Any

import pytest

from builders import Database, a_type, ask, count, submit, submit_many
from faults.proxy import Proxy
from simpleworkflow import Client, DatabaseUnavailable, NewRun, Worker, statements
from worker.stage import WorkerThread, ended, eventually

NETWORK = "Database and network"
AWAY = "the database is away"
EXCHANGE = r"\.exchange\("


def run_through(proxy: Proxy, db: Database, runs: int, **options: Any) -> list[int]:
    """Let a worker behind ``proxy`` execute so many runs; return the attempts it has begun."""
    type_, attempts = a_type(), []
    worker = Worker(**{"database_url": proxy.url, "lease_seconds": 5, "poll_seconds": 0.5} | options)

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        attempts.append(run.attempt)

    with WorkerThread(worker):
        ids = [one.id for one in submit_many(db, [NewRun(type=type_)] * runs)]
        for run_id in ids:
            assert ended(db, str(run_id), seconds=15) == "succeeded"
    return attempts


@pytest.mark.fault(NETWORK, "every message is 200 ms late", "P2, P3")
def test_a_slow_network_costs_no_lease(proxy: Proxy, db: Database, caplog: pytest.LogCaptureFixture) -> None:
    proxy.delay(0.2)

    attempts = run_through(proxy, db, 50)

    assert attempts == [1] * 50
    assert AWAY not in caplog.text


@pytest.mark.fault(
    NETWORK, "a run is lost while the answer of its claim is on its way, a third of a lease late", "P3"
)
def test_what_was_lost_before_its_claim_was_known_is_not_executed(proxy: Proxy, db: Database) -> None:
    type_, begun = a_type(), []
    worker = Worker(database_url=proxy.url, lease_seconds=1.5, poll_seconds=0.1)

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        begun.append(run.fencing_token)

    with WorkerThread(worker):
        assert ended(db, submit(db, type_)) == "succeeded"
        proxy.delay(0.2)
        proxy.wait_for(EXCHANGE, count=proxy.count(EXCHANGE) + 1)  # late from its first message to its answer
        run_id = submit(db, type_)
        eventually(lambda: count(db, "workflow_run", "id = %s and status = 'leased'", run_id) == 1)
        db.execute("select from expire(array(select leased_by from workflow_run where id = %s))", [run_id])
        assert ask(db, statements.exchange("another", [], [type_], limit=1, lease_seconds=30)).claimed
        proxy.wait_for(r"\.heartbeat\(")
        threading.Event().wait(1)
        proxy.heal()

    assert begun == [1]


@pytest.mark.fault(NETWORK, "ten thousand bytes a second", "P2, P3")
def test_a_thin_network_costs_no_lease(proxy: Proxy, db: Database, caplog: pytest.LogCaptureFixture) -> None:
    proxy.trickle(10_000)

    attempts = run_through(proxy, db, 50)

    assert attempts == [1] * 50
    assert AWAY not in caplog.text


@pytest.mark.fault(NETWORK, "every message is 200 ms late, for a client", "P1")
def test_a_client_on_a_slow_network_works(open_client: Any, proxy: Proxy, db: Database) -> None:
    proxy.delay(0.2)
    client = open_client(proxy.url)

    handle = client.submit("a.run.v1", idempotency_key="k")

    assert client.get(handle.id).status == "pending"
    assert count(db, "workflow_run") == 1


@pytest.mark.fault(NETWORK, "connections are reset at random under load", "P1, P2, P9")
@pytest.mark.parametrize("round_", range(2))
def test_resets_at_random_lose_nothing_and_do_nothing_twice(
    round_: int, proxy: Proxy, db: Database, record_property: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seed = int(os.environ.get("NETWORK_SEED", random.randrange(1 << 30)))
    record_property("seed", seed)
    print("NETWORK_SEED =", seed)
    dice, type_, over = random.Random(seed), a_type(), threading.Event()
    told: dict[str, str] = {}  # what the producer was told of each key
    results: list[tuple[str, int]] = []
    worker = Worker(database_url=proxy.url, lease_seconds=1, poll_seconds=0.2)

    @worker.handler(type_, backoff=0)
    async def handle(run: Any) -> int:
        results.append((str(run.id), run.fencing_token))
        await asyncio.sleep(0.005)
        return int(run.fencing_token)

    def produce() -> None:
        with Client(proxy.url) as client:
            while not over.is_set():
                key = f"key-{len(told)}"
                try:
                    told[key] = str(client.submit(type_, idempotency_key=key).id)
                except DatabaseUnavailable as error:
                    told[key] = "unknown" if error.is_unknown else "not recorded"

    producer = threading.Thread(target=produce)
    with WorkerThread(worker):
        producer.start()
        for turn in range(200):
            if turn >= 20 and len(told) > 30:
                break
            over.wait(dice.uniform(0.02, 0.1))
            for session in proxy.sessions():
                if dice.random() < 0.3:
                    proxy._on_loop(lambda session=session: session.end(session.near, session.far))
        over.set()
        producer.join(15)
        eventually(lambda: count(db, "workflow_run", "finished_at is null") == 0, seconds=15)

    found = dict(db.execute("select idempotency_key, id::text from workflow_run").fetchall())
    assert len(told) > 3
    assert all(
        found.get(key) == said for key, said in told.items() if said not in ("unknown", "not recorded")
    )
    assert not [key for key, said in told.items() if said == "not recorded" and key in found]
    assert set(found) <= set(told)
    assert count(db, "workflow_run", "status <> 'succeeded'") == 0
    assert len(set(results)) == len(results)  # one execution for each claim
    assert ask(db, statements.verify(slack_seconds=5)) == []
    assert caplog.text.count(AWAY) <= 10


@pytest.mark.fault(NETWORK, "connections are reset one by one: no outage worth a line", "P1")
def test_a_session_that_is_lost_and_had_again_at_once_is_not_said(
    proxy: Proxy, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    type_ = a_type()
    # Where the answer of a claim is lost with a session, the run comes back with its lease.
    worker = Worker(database_url=proxy.url, poll_seconds=0.2, lease_seconds=2)

    @worker.handler(type_)
    async def handle(run: Any) -> None: ...

    with WorkerThread(worker):
        for _ in range(5):
            assert ended(db, submit(db, type_)) == "succeeded"
            assert proxy.reset(of=EXCHANGE) > 0

        assert ended(db, submit(db, type_)) == "succeeded"
    assert AWAY not in caplog.text
