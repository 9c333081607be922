"""The producers, each a program: ``python -m chaos.producers sync|sql|async RATE SEED``.

For each submission the ledger says what was intended before, and after it what the producer was told: ``ok`` with
the id, ``failed`` (it cannot be there), or ``unknown``.  An intention without an answer: the producer was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from chaos.ledger import Ledger
from chaos.orders import HOSTILE, Order, an_order
from simpleworkflow import AsyncClient, Client, DatabaseUnavailable, NewRun
from simpleworkflow.dburl import parse

URL = os.environ["DATABASE_URL"]
ASYNC_TASKS = 4
# Who was kept from submitting does not make up for all of it.
BEHIND_SECONDS_MAX = 0.5
REPEATS_MAX = 200


class Producer:
    """What all three have: their orders at their rate, the ledger, and the wish to stop."""

    def __init__(self, kind: str, rate: float, seed: str) -> None:
        self.kind, self.rate = kind, rate
        # Another life has other marks and other chances.
        self.name = f"{kind}:{os.getpid()}"
        self.chance = random.Random(f"{kind} {seed} {os.getpid()}")
        self.ledger = Ledger(Path(os.environ["CHAOS_FOLDER"]) / f"producer-{kind}")
        self.is_stopping = False
        self._number = 0
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "is_stopping", True))

    def order(self) -> Order:
        """Return the next order and note it; some have a key, some a key that the other producers use too."""
        self._number += 1
        key = None
        if (dice := self.chance.random()) < 0.02:
            key = f"shared:{int(time.monotonic() * 2)}"
        elif dice < 0.2:
            key = f"{self.name}:{self._number}"
        order = an_order(self.chance, f"{self.name}:{self._number}", key=key)
        self.ledger.write("intend", mark=order.mark, key=key)
        return order

    def told(self, order: Order, what: str, **values: Any) -> None:
        """Note what the producer was told of an order."""
        self.ledger.write(what, mark=order.mark, **values)

    def waits(self, share: float = 1.0) -> Iterator[float]:
        """Yield how long to wait before the next submission, until it is time to stop."""
        due = time.monotonic()
        while not self.is_stopping:
            now = time.monotonic()
            due = max(due + self.chance.expovariate(self.rate * share), now - BEHIND_SECONDS_MAX)
            yield max(0.0, due - now)


def new_run(order: Order) -> NewRun:
    return NewRun(
        type=order.type,
        payload=order.payload,
        idempotency_key=order.key,
        delay=order.delay,
        max_attempts=order.max_attempts,
    )


def word_for(order: Order, error: Exception) -> str:
    """Return what a client's error says of the submission."""
    if order.key is not None:  # it is not told apart: whoever has a key repeats the submission
        return "unknown"
    # The driver's own errors are answers of the server: it refused or cancelled the statement.
    return "unknown" if isinstance(error, DatabaseUnavailable) and "unknown" in str(error) else "failed"


# ── the sync client ────────────────────────────────────────────────────────────────────────────────


def submit_by_client(producer: Producer) -> None:
    with Client(URL) as client:
        for seconds in producer.waits():
            time.sleep(seconds)
            orders = [producer.order() for _ in range(10 if producer.chance.random() < 0.01 else 1)]
            for _ in range(REPEATS_MAX):
                try:
                    runs = (
                        client.submit_many([new_run(order) for order in orders])
                        if len(orders) > 1
                        else [submit_one(client, orders[0])]
                    )
                except (DatabaseUnavailable, psycopg.Error) as error:
                    for order in orders:
                        producer.told(order, word_for(order, error), error=str(error)[:200])
                    if not all(order.key for order in orders):
                        break
                    time.sleep(0.2)
                else:
                    for order, run in zip(orders, runs, strict=True):
                        producer.told(order, "ok", run=str(run.id), created=run.created)
                    break


def submit_one(client: Client, order: Order) -> Any:
    return client.submit(
        order.type,
        order.payload,
        idempotency_key=order.key,
        delay=order.delay,
        max_attempts=order.max_attempts,
    )


# ── the async client ───────────────────────────────────────────────────────────────────────────────


async def submit_by_async_client(producer: Producer) -> None:
    async with AsyncClient(URL) as client, asyncio.TaskGroup() as tasks:
        for _ in range(ASYNC_TASKS):
            tasks.create_task(_submit_in_task(producer, client))


async def _submit_in_task(producer: Producer, client: AsyncClient) -> None:
    for seconds in producer.waits(1 / ASYNC_TASKS):
        await asyncio.sleep(seconds)
        order = producer.order()
        for _ in range(REPEATS_MAX):
            try:
                run = await client.submit(
                    order.type,
                    order.payload,
                    idempotency_key=order.key,
                    delay=order.delay,
                    max_attempts=order.max_attempts,
                )
            except (DatabaseUnavailable, psycopg.Error) as error:
                producer.told(order, word_for(order, error), error=str(error)[:200])
                if order.key is None:
                    break
                await asyncio.sleep(0.2)
            else:
                producer.told(order, "ok", run=str(run.id), created=run.created)
                break


# ── plain SQL ──────────────────────────────────────────────────────────────────────────────────────

INSERT = (
    "insert into workflow_run (type, payload, idempotency_key, max_attempts, run_at)"
    " values (%s, %s::text::jsonb, %s, %s, now() + make_interval(secs => %s))"
    " on conflict (idempotency_key) do nothing returning id::text"
)


def submit_by_sql(producer: Producer) -> None:
    conn: psycopg.Connection[Any] | None = None
    for seconds in producer.waits():
        time.sleep(seconds)
        if conn is None or conn.closed:
            try:
                conn = psycopg.connect(parse(URL).portable, autocommit=True, connect_timeout=5)
            except psycopg.OperationalError:
                continue
        if producer.chance.random() < 0.03:
            _submit_together(producer, conn)
        else:
            _submit_alone(producer, conn)


def _submit_alone(producer: Producer, conn: psycopg.Connection[Any]) -> None:
    order = producer.order()
    try:
        run_id = _insert(producer, conn, order)
    except psycopg.Error as error:
        # A server that answered with an error has rolled back; one that is gone may have committed.
        producer.told(order, "unknown" if conn.closed else "failed", error=str(error)[:200])
    else:
        producer.told(order, "ok", run=run_id, created=run_id is not None)


def _submit_together(producer: Producer, conn: psycopg.Connection[Any]) -> None:
    orders = [producer.order() for _ in range(producer.chance.randint(2, 40))]
    is_rolled_back = producer.chance.random() < 0.3
    is_sent = False
    ids = []
    try:
        conn.execute("begin")
        ids = [_insert(producer, conn, order) for order in orders]
        is_sent = not is_rolled_back
        done = conn.execute("rollback" if is_rolled_back else "commit").statusmessage
    except psycopg.Error as error:
        is_unknown = is_sent and conn.closed
        for order in orders:
            producer.told(order, "unknown" if is_unknown else "failed", error=str(error)[:200])
        conn.close()
        return
    for order, run_id in zip(orders, ids, strict=True):
        if done == "COMMIT":
            producer.told(order, "ok", run=run_id, created=run_id is not None)
        else:
            producer.told(order, "failed", error="rolled back")


def _insert(producer: Producer, conn: psycopg.Connection[Any], order: Order) -> str | None:
    type_, payload, attempts = order.type, json.dumps(order.payload), order.max_attempts
    if producer.chance.random() < 0.01:
        type_, payload = "chaos.hostile.v1", producer.chance.choice(HOSTILE).format(mark=order.mark)
    row = conn.execute(INSERT, [type_, payload, order.key, attempts, order.delay]).fetchone()
    return None if row is None else str(row[0])


def main() -> None:
    kind, rate, seed = sys.argv[1:4]
    producer = Producer(kind, float(rate), seed)
    if kind == "sync":
        submit_by_client(producer)
    elif kind == "sql":
        submit_by_sql(producer)
    else:
        asyncio.run(submit_by_async_client(producer))


if __name__ == "__main__":
    main()
