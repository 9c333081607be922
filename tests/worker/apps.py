"""The worker that runs in programs of its own, under a supervisor or by itself: ``python apps.py``.

Each execution leaves a line in the file that ``NOTES`` names: what, run id, token, pid.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

from simpleworkflow import Worker
from simpleworkflow.worker import cpu, execution, threads

execution.OVERRUN_SECONDS = 0.3  # the tests wait for it
ENVIRONMENT = os.environ
cpu.READY_SECONDS_MAX = float(ENVIRONMENT.get("READY", "60"))
threads.LEFT_PER_PLACE_MAX = int(ENVIRONMENT.get("LEFT_PER_PLACE", "10"))
NOTES = os.open(ENVIRONMENT["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

worker = Worker(
    lease_seconds=float(ENVIRONMENT.get("LEASE", "3")),
    grace_seconds=float(ENVIRONMENT.get("GRACE", "10")),
    poll_seconds=float(ENVIRONMENT.get("POLL", "0.3")),
    concurrency=int(ENVIRONMENT["CONCURRENCY"]) if "CONCURRENCY" in ENVIRONMENT else None,
    threads=4,
    cpu_processes=1,
)


def note(what: str, run: Any = None) -> None:
    """Leave a line outside the system under test."""
    values = (what, run.id, run.fencing_token) if run else (what, "-", "-")
    os.write(NOTES, (" ".join(map(str, [*values, os.getpid()])) + "\n").encode())


@worker.on_startup
async def started() -> None:
    note("startup")
    if seconds := ENVIRONMENT.get("STARTUP_HANGS"):
        time.sleep(float(seconds))
    if message := ENVIRONMENT.get("STARTUP_ERROR"):
        raise ValueError(message)


@worker.on_shutdown
def stopped() -> None:
    note("shutdown")


@worker.handler("app.quick.v1")
async def quick(run: Any) -> int:
    note("quick", run)
    return run.attempt


@worker.handler("app.exit.v1")
def leave(run: Any) -> int:
    if run.attempt == 1:
        os._exit(run.payload["code"])
    return run.attempt


@worker.handler("app.segfault.v1")
def segfault(run: Any) -> None:
    note("segfault", run)
    ctypes.string_at(0)


@worker.handler("app.poison.v1")
async def poison(run: Any) -> None:
    note("poison", run)
    await asyncio.sleep(run.payload["seconds"])
    ctypes.string_at(0)


@worker.handler("app.long.v1")
async def long(run: Any) -> int:
    note("long", run)
    await asyncio.sleep(run.payload["seconds"])
    note("long-end", run)
    return run.attempt


@worker.handler("app.sleep.v1", backoff=0)
async def sleep(run: Any) -> int:
    note("sleep", run)
    try:
        await asyncio.sleep(run.payload["seconds"] if run.attempt == 1 else 0)
    except asyncio.CancelledError:
        note("cancelled", run)
        raise
    note("slept", run)
    return run.fencing_token


@worker.handler("app.block.v1")
async def block(run: Any) -> int:
    note("block", run)
    time.sleep(run.payload["seconds"])
    return run.attempt


@worker.handler("app.gil.v1")
def hold_the_gil(run: Any) -> int:
    note("gil", run)
    ctypes.PyDLL(None).usleep(int(run.payload["seconds"] * 1_000_000))
    return run.attempt


@worker.handler("app.thread.v1")
def wait_in_a_thread(run: Any) -> int:
    note("thread", run)
    threading.Event().wait(run.payload["seconds"] if run.attempt == 1 else 0)
    note("thread-end", run)
    return run.fencing_token


@worker.handler("app.overrun.v1", timeout_seconds=0.2)
async def overrun(run: Any) -> int:
    note("overrun", run)
    if run.attempt == 1:
        time.sleep(60)
    return run.attempt


@worker.handler("app.stubborn.v1")
async def stubborn(run: Any) -> None:
    note("stubborn", run)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("unmoved", run)


if ENVIRONMENT.get("CRASH"):
    note("crash")
    os._exit(int(ENVIRONMENT["CRASH"]))

note("loaded")
nothing = "not a worker"

if __name__ == "__main__":
    Path(f"{ENVIRONMENT['NOTES']}.pid").write_text(str(os.getpid()))
    import logging

    logging.basicConfig(level="INFO")
    worker.run()
