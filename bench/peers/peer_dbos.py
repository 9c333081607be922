"""dbos: workflows from a registered queue, recorded by its client."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, DBOSClient

from protocol import main, started

# https://docs.dbos.dev/python/reference/queues: polling_interval_sec; no limit of concurrency on the queue.
# https://docs.dbos.dev/python/reference/configuration: sys_db_pool_size.  There is no submit of many: threads.
POLL_SECONDS = 0.1
POOL = 20
VERSION = "bench"


def _configure(url, executor):
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "sys_db_pool_size": POOL,
            "application_version": VERSION,
            "executor_id": executor,
            "log_level": "ERROR",
        }
    )

    @DBOS.workflow(name="noop")
    def noop(payload):
        started(payload)


def setup(url):
    _configure(url, "setup")
    DBOS.launch()
    DBOS.register_queue("bench", polling_interval_sec=POLL_SECONDS)
    DBOS.destroy()


class Producer:
    def __init__(self, url):
        self._client = DBOSClient(system_database_url=url)
        self._threads = ThreadPoolExecutor(10)
        self._options = {"queue_name": "bench", "workflow_name": "noop", "app_version": VERSION}

    def submit(self, payload):
        self._client.enqueue(dict(self._options), payload)

    def bulk(self, payloads):
        list(self._threads.map(self.submit, payloads))


def work(url):
    _configure(url, f"bench-{os.getpid()}")
    DBOS.launch()
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    end.wait()
    DBOS.destroy()


main(setup, Producer, work)
