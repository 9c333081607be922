"""The worker under fire: ``wf worker chaos.app:worker``, or by itself ``python -m chaos.app``.

Each execution leaves its lines in a ledger.  What a handler does is in the payload, so that the producer knows how
the run must end.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from chaos.ledger import Ledger
from chaos.plan import LEASE_SECONDS
from simpleworkflow import RetryAfter, Worker

ledger = Ledger(Path(os.environ["CHAOS_FOLDER"]) / "executions")
worker = Worker(
    concurrency=40,
    threads=8,
    cpu_processes=1,
    lease_seconds=LEASE_SECONDS,
    poll_seconds=0.5,
    grace_seconds=4,
)
BACKOFF_SECONDS = 0.2


def begin(run: Any) -> None:
    """Note the start, then do what the payload says of failing and crashing."""
    ledger.write(
        "start", run=str(run.id), token=run.fencing_token, attempt=run.attempt, type=run.type, pid=os.getpid()
    )
    if run.attempt <= run.payload.get("crashes", 0):
        ledger.write("crash", run=str(run.id), token=run.fencing_token, pid=os.getpid())
        if run.payload["how"] == "segfault":
            ctypes.string_at(0)
        os._exit(int(run.payload["how"]))
    if run.attempt <= run.payload.get("fails", 0):
        ledger.write("raise", run=str(run.id), token=run.fencing_token)
        if run.attempt % 2:
            raise RuntimeError(f"attempt {run.attempt} fails as ordered")
        raise RetryAfter(0.3, "later")


def end(run: Any, **more: Any) -> dict[str, Any]:
    """Note the end; return the result, which nobody else can have computed."""
    nonce = secrets.token_hex(6)
    ledger.write("end", run=str(run.id), token=run.fencing_token, nonce=nonce)
    return {"token": run.fencing_token, "nonce": nonce} | more


def seconds_of(run: Any) -> float:
    return float(run.payload.get("ms", 0)) / 1000


@worker.handler("chaos.short.v1", backoff=BACKOFF_SECONDS)
@worker.handler("chaos.gone.v1", backoff=BACKOFF_SECONDS)
@worker.handler("chaos.some.v1", backoff=BACKOFF_SECONDS)
@worker.handler("chaos.long.v1", backoff=BACKOFF_SECONDS)
@worker.handler("chaos.retry.v1", backoff=BACKOFF_SECONDS)
@worker.handler("chaos.crash.v1", backoff=BACKOFF_SECONDS)
@worker.handler("chaos.hostile.v1", backoff=BACKOFF_SECONDS)
async def wait(run: Any) -> dict[str, Any]:
    begin(run)
    await asyncio.sleep(seconds_of(run))
    return end(run)


@worker.handler("chaos.thread.v1", backoff=BACKOFF_SECONDS)
def wait_in_a_thread(run: Any) -> dict[str, Any]:
    begin(run)
    until = time.monotonic() + seconds_of(run)
    while time.monotonic() < until and not run.is_cancelled():
        threading.Event().wait(0.02)
    return end(run)


@worker.handler("chaos.cpu.v1", cpu=True, backoff=BACKOFF_SECONDS)
def compute(run: Any) -> dict[str, Any]:
    begin(run)
    until = time.monotonic() + seconds_of(run)
    while time.monotonic() < until:
        pass
    return end(run)


@worker.handler("chaos.late.v1", timeout_seconds=0.3, backoff=BACKOFF_SECONDS)
async def overrun(run: Any) -> dict[str, Any]:
    begin(run)
    if run.attempt <= run.payload["late"]:
        await asyncio.sleep(30)
    return end(run)


@worker.handler("chaos.latecpu.v1", timeout_seconds=0.5, cpu=True, backoff=BACKOFF_SECONDS)
def overrun_computing(run: Any) -> dict[str, Any]:
    begin(run)
    if run.attempt <= run.payload["late"]:
        time.sleep(30)
    return end(run)


@worker.handler("chaos.block.v1", backoff=BACKOFF_SECONDS)
async def block(run: Any) -> dict[str, Any]:
    begin(run)
    time.sleep(seconds_of(run))
    return end(run)


@worker.handler("chaos.beat.v1", backoff=BACKOFF_SECONDS)
async def beat(run: Any) -> dict[str, Any]:
    begin(run)
    for percent in (0, 50, 100):
        await run.progress(percent, "under way")
        await run.heartbeat(5)
        await asyncio.sleep(seconds_of(run) / 3)
    return end(run)


@worker.handler("chaos.big.v1", backoff=BACKOFF_SECONDS)
async def return_much(run: Any) -> dict[str, Any]:
    begin(run)
    return end(run, much="x" * run.payload["bytes"])


if __name__ == "__main__":
    import logging

    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s")
    worker.run()
