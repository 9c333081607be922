"""awa: its Rust runtime under the asynchronous Python client."""

import asyncio
import signal
from dataclasses import dataclass

import awa

from protocol import main, started

# https://github.com/hardbyte/awa/blob/main/docs/benchmarking.md: one queue with many workers rather than many
# queues, a pool of at least four connections a queue and twenty; enqueue_many_copy for many (the package's README).
WORKERS = 128
POOL = 24
SCHEMA = "awa"


@dataclass
class Noop:
    i: int


async def setup(url):
    client = awa.AsyncClient(url)
    await client.migrate()
    await client.install_queue_storage(schema=SCHEMA)  # what a cluster that starts with this version uses
    await client.close()


class Producer:
    def __init__(self, url):
        self._client = awa.AsyncClient(url)

    def submit(self, payload):
        return self._client.insert(Noop(payload.get("i", -1)), queue="bench")

    def bulk(self, payloads):
        return self._client.enqueue_many_copy([Noop(one.get("i", -1)) for one in payloads], queue="bench")


async def work(url):
    client = awa.AsyncClient(url, max_connections=POOL)

    @client.task(Noop, queue="bench")
    async def noop(job):
        if job.args.i >= 0:
            started({"i": job.args.i})

    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await client.start([("bench", WORKERS)], queue_storage_schema=SCHEMA)
    await end.wait()
    await client.shutdown()


main(setup, Producer, work)
