"""The worker that is killed: each execution leaves a line in a ledger outside the system under test."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from simpleworkflow import Worker

worker = Worker(lease_seconds=10)
LEDGER = os.open(os.environ["KILLS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@worker.handler("kills.%", backoff=0.1)
async def work(run: Any) -> dict[str, int]:
    os.write(LEDGER, f"{run.id} {run.fencing_token}\n".encode())
    await asyncio.sleep(run.payload["milliseconds"] / 1000)
    return {"token": run.fencing_token}
