"""chancy: one queue on the asyncio executor."""

from chancy import Chancy, Queue, Worker, job

from protocol import main, started

# https://tkte.ch/chancy/guide/queues.html and https://tkte.ch/chancy/chancy.queue.html: concurrency, the executor
# for asynchronous jobs, eager_polling for queues that always have jobs.
CONCURRENCY = 100
POOL = 10


@job(queue="bench")
async def noop(*, payload: dict) -> None:
    started(payload)


async def setup(url):
    async with Chancy(url) as chancy:
        await chancy.migrate()
        await chancy.declare(
            Queue(
                "bench",
                concurrency=CONCURRENCY,
                executor="chancy.executors.asyncex.AsyncExecutor",
                polling_interval=1,
                eager_polling=True,
            )
        )


class Producer:
    def __init__(self, chancy):
        self._chancy = chancy

    def submit(self, payload):
        return self._chancy.push(noop.job.with_kwargs(payload=payload))

    async def bulk(self, payloads):
        async for _ in self._chancy.push_many([noop.job.with_kwargs(payload=one) for one in payloads]):
            pass


async def producer(url):
    return Producer(await Chancy(url).__aenter__())


async def work(url):
    async with Chancy(url, max_connection_pool_size=POOL) as chancy, Worker(chancy) as worker:
        await worker.wait_for_shutdown()


if __name__ == "__main__":  # its process executor starts the program anew
    main(setup, producer, work)
