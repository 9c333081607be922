"""absurd: its SQL file as absurdctl ships it, the asynchronous SDK."""

import asyncio
import json
import os
import signal

import psycopg
from absurd_sdk import AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from protocol import main, started

# https://earendil-works.github.io/absurd/sdks/python/: concurrency, batch_size and poll_interval of start_worker.
CONCURRENCY = 100
QUEUE = "bench"
MANY = (
    "select count(*) from unnest(%s::text[]) as payload"
    " cross join lateral absurd.spawn_task(%s, 'noop', payload::jsonb, '{}')"
)


def setup(url):
    with psycopg.connect(url) as conn:
        conn.execute(BUNDLED_SCHEMA_SQL)
        conn.execute("select absurd.create_queue(%s, 'unpartitioned')", [QUEUE])


def _app(url):
    app = AsyncAbsurd(url, queue_name=QUEUE)

    @app.register_task("noop")
    async def noop(params, _context):
        started(params)

    return app


class Producer:
    def __init__(self, url):
        self._app = _app(url)
        self._url = url
        self._conn = None

    def submit(self, payload):
        return self._app.spawn("noop", payload)

    async def bulk(self, payloads):
        self._conn = self._conn or await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        await self._conn.execute(MANY, [[json.dumps(one) for one in payloads], QUEUE])


async def work(url):
    app = _app(url)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop_worker)
    await app.start_worker(
        worker_id=f"bench-{os.getpid()}", concurrency=CONCURRENCY, batch_size=CONCURRENCY, poll_interval=0.25
    )


main(setup, Producer, work)
