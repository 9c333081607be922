"""The worker that is killed: each start of a handler leaves a line, with the time that all processes share."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from simpleworkflow import AsyncWorkflowRun, Worker

ENVIRONMENT = os.environ
STARTS = os.open(ENVIRONMENT["STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
time.sleep(float(ENVIRONMENT.get("IMPORT_SECONDS", "0")))  # a heavy import

print("imported", file=sys.stderr, flush=True)

worker = Worker(
    lease_seconds=float(ENVIRONMENT.get("LEASE", "30")),
    poll_seconds=float(ENVIRONMENT.get("POLL", "2")),
    grace_seconds=float(ENVIRONMENT.get("GRACE", "0.2")),
)


@worker.handler("recovery.%", backoff=0)
async def handle(run: AsyncWorkflowRun) -> None:
    """Say that it has started; hold the run until somebody ends it."""
    os.write(STARTS, f"{run.id} {run.fencing_token} {time.monotonic()} {os.getpid()}\n".encode())
    if run.fencing_token <= run.payload:
        await asyncio.sleep(600)
