"""simple-workflow: `wf worker` with its default options, the client as its documentation shows it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

from protocol import main, started
from simpleworkflow import AsyncWorkflowRun, Client, Worker
from simpleworkflow.migrate import migrate

TYPE = "bench.noop.v1"

worker = Worker()


@worker.handler(TYPE)
async def noop(run: AsyncWorkflowRun) -> None:
    """Do nothing, but say when a tagged run starts."""
    started(run.payload)


def setup(url: str) -> None:
    """Make the schema."""
    with psycopg.connect(url, autocommit=True) as conn:
        migrate(conn, "workflow")


class Producer:
    """The synchronous client."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)

    def submit(self, payload: dict[str, int]) -> object:
        """Record one run."""
        return self._client.submit(TYPE, payload)

    def bulk(self, payloads: list[dict[str, int]]) -> object:
        """Record many runs."""
        return self._client.submit_many((TYPE, payload) for payload in payloads)


def work(url: str) -> None:
    """Become `wf worker`."""
    become_worker(url, "ours:worker")


def become_worker(url: str, target: str) -> None:
    """Become `wf worker` of a module in this folder."""
    wf = str(Path(sys.executable).with_name("wf"))
    os.chdir(Path(__file__).parent)
    os.environ |= {"DATABASE_URL": url, "SIMPLEWORKFLOW_LOG_LEVEL": "ERROR"}
    os.execv(wf, [wf, "worker", target, "--processes", os.environ["BENCH_PROCESSES"]])


if __name__ == "__main__":
    main(setup, Producer, work)
