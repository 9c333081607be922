"""pgqueuer: one QueueManager on a direct asyncpg connection, as its tuning guide says."""

import asyncio
import json
import signal
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from protocol import main, started

# https://pgqueuer.readthedocs.io/en/latest/guides/performance-tuning/: a larger batch for short jobs, a direct
# asyncpg connection for the manager, `pgq autovac` after installing; durability stays at its default.
BATCH = 500
ENTRYPOINT = "noop"


async def setup(url):
    conn = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(conn))
    await queries.install()
    await queries.optimize_autovacuum()
    await conn.close()


class Producer:
    def __init__(self, queries):
        self._queries = queries

    def submit(self, payload):
        return self._queries.enqueue(ENTRYPOINT, json.dumps(payload).encode())

    def bulk(self, payloads):
        count = len(payloads)
        rows = [json.dumps(one).encode() for one in payloads]
        return self._queries.enqueue([ENTRYPOINT] * count, rows, [0] * count)


async def producer(url):
    return Producer(Queries(AsyncpgDriver(await asyncpg.connect(url))))


def work(url):
    uvloop.install()
    asyncio.run(_work(url))


async def _work(url):
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @pgq.entrypoint(ENTRYPOINT)
    async def noop(job):
        started(json.loads(job.payload))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)
    await pgq.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30))


main(setup, producer, work)
