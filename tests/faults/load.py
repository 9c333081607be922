"""Load for a faulty database: producers and a worker, and ledgers of what they were told and what was executed."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from builders import Database, count
from simpleworkflow import Client, DatabaseUnavailable, Worker, WorkflowRun
from worker.stage import WorkerThread, eventually

TYPE = "load.run.v1"


class Producers:
    """Threads that record runs, one after the other, and note what each was told.

    ``recorded``: ids that were acknowledged.  ``unknown``: so often nobody could say.  ``refused``: the errors of the
    rest, which are certain not to be there.
    """

    def __init__(
        self, url: str, *, threads: int = 2, pool_size: int = 2, pause: float = 0.005, payload: str = ""
    ) -> None:
        self.recorded: list[str] = []
        self.unknown = 0
        self.refused: list[Exception] = []
        self._client = Client(url, pool_size=pool_size)
        self._pause = pause
        self._payload = payload
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._produce, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Producers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the load."""
        self._over.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        self._client.close()

    def progress(self, more: int = 20, *, seconds: float = 10) -> None:
        """Wait until so many more runs were acknowledged."""
        wanted = len(self.recorded) + more
        eventually(lambda: len(self.recorded) >= wanted, seconds=seconds, what=f"{more} more runs recorded")

    def _produce(self) -> None:
        while not self._over.wait(self._pause):
            try:
                self.recorded.append(str(self._client.submit(TYPE, self._payload).id))
            except DatabaseUnavailable as error:
                if "unknown" in str(error):
                    self.unknown += 1
                else:
                    self.refused.append(error)
            except Exception as error:
                self.refused.append(error)


class Executions:
    """Notes each execution by run and token, and when the last one was."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, int]] = Counter()
        self.last_at = 0.0

    def note(self, run: WorkflowRun) -> None:
        self.counted[str(run.id), run.fencing_token] += 1
        self.last_at = monotonic()


@contextmanager
def working(
    url: str,
    *,
    lease_seconds: float = 2,
    concurrency: int = 20,
    executions: Executions | None = None,
    run_seconds: float = 0,
) -> Iterator[Executions]:
    """Run a worker that executes the load, each run so long."""
    executions = executions or Executions()
    worker = Worker(
        lease_seconds=lease_seconds,
        poll_seconds=0.2,
        concurrency=concurrency,
        database_url=url,
        grace_seconds=2,
    )

    @worker.handler(TYPE, backoff=0)
    async def handle(run: WorkflowRun) -> None:
        executions.note(run)
        await asyncio.sleep(run_seconds)

    with WorkerThread(worker):
        yield executions


def drained(db: Database, *, seconds: float = 10) -> None:
    """Wait until every run has ended."""
    eventually(
        lambda: count(db, "workflow_run", "finished_at is null") == 0, seconds=seconds, what="the drain"
    )


def agree(db: Database, producers: Producers, executions: Executions) -> None:
    """Nothing acknowledged is lost, nothing else is there, all succeeded, no claim was executed twice."""
    ids = {row[0] for row in db.execute("select id::text from workflow_run where status = 'succeeded'")}
    assert count(db, "workflow_run") == len(ids)
    assert set(producers.recorded) <= ids
    assert len(ids) - len(set(producers.recorded)) <= producers.unknown
    assert len(set(producers.recorded)) == len(producers.recorded)
    assert set(executions.counted.values()) <= {1}


def outages(caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """Return how often the worker's log says that the database is away, and that it is back."""
    said = [record.getMessage() for record in caplog.records if record.name == "simpleworkflow.worker"]
    return (
        sum("the database is away" in one for one in said),
        sum("the database is back" in one for one in said),
    )
