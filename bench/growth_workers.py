"""The workers of the growth benchmark, each with the default options; no handler that is measured does anything."""

from __future__ import annotations

import asyncio

from simpleworkflow import AsyncWorkflowRun, Worker, WorkflowRun

one = Worker()
many = Worker()
threads = Worker()
cpu = Worker()


@one.handler("bench.noop.v1")
@many.handler("bench.many.%")
async def on_the_loop(run: AsyncWorkflowRun) -> None:
    """Do nothing, on the loop."""


@one.handler("bench.pause.v1")
async def pause(run: AsyncWorkflowRun) -> None:  # noqa: ARG001 - a handler takes its run
    """Hold a place for a second: so many at once that no worker alone can take them all show who has started."""
    await asyncio.sleep(1)


@threads.handler("bench.thread.v1")
def in_a_thread(run: WorkflowRun) -> None:
    """Do nothing, in a thread."""


@cpu.handler("bench.cpu.v1", cpu=True)
def in_a_process(run: WorkflowRun) -> None:
    """Do nothing, in a process that can be killed."""
