"""procrastinate: one worker with many asynchronous sub-workers."""

import procrastinate

from protocol import main, started

# https://procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html: its example has 30 sub-workers;
# the pool has to be as large (howto/production/connections).
CONCURRENCY = 30


def _app(url, connections):
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=connections)
    )

    @app.task(name="noop")
    async def noop(**payload):
        started(payload)

    return app, noop


async def setup(url):
    app, _ = _app(url, 2)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


class Producer:
    def __init__(self, noop):
        self._noop = noop

    def submit(self, payload):
        return self._noop.defer_async(**payload)

    def bulk(self, payloads):
        return self._noop.batch_defer_async(*payloads)


async def producer(url):
    app, noop = _app(url, 2)
    await app.open_async().__aenter__()
    return Producer(noop)


async def work(url):
    app, _ = _app(url, CONCURRENCY + 2)
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, wait=True)


main(setup, producer, work)
