"""The worker that the benchmark drains with."""

from __future__ import annotations

from simpleworkflow import AsyncWorkflowRun, Worker

worker = Worker()


@worker.handler("bench.noop.v1")
async def noop(run: AsyncWorkflowRun) -> None:
    """Do nothing, so that what is measured is the system."""
