"""simple-workflow with a handler that takes a list of runs, and a policy that keeps no events and no succeeded runs."""

from __future__ import annotations

from ours import TYPE, Producer, become_worker
from ours import setup as setup_schema
from protocol import main, started
from simpleworkflow import AsyncWorkflowRun, Client, Worker

worker = Worker(concurrency=1000)


@worker.handler(TYPE, batch_max=500)
async def noop(runs: list[AsyncWorkflowRun]) -> None:
    """Do nothing, but say when a tagged run starts."""
    for run in runs:
        started(run.payload)


def setup(url: str) -> None:
    """Make the schema and set the policy."""
    setup_schema(url)
    with Client(url) as client:
        client.set_policy("bench.%", keeps_events=False, keeps_succeeded=False)


def work(url: str) -> None:
    """Become `wf worker`."""
    become_worker(url, "ours_batch:worker")


if __name__ == "__main__":
    main(setup, Producer, work)
