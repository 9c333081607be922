"""Handlers that log, each in its way."""

from __future__ import annotations

import asyncio
import logging
import warnings
from typing import Any

from simpleworkflow import Worker

worker = Worker(poll_seconds=0.3)
logger = logging.getLogger("shop")


@worker.handler("log.async.v1")
async def log_on_the_loop(run: Any) -> None:
    await asyncio.gather(_log(), asyncio.sleep(0))


async def _log() -> None:
    await asyncio.sleep(0)
    logger.info("on the loop,\nwith %s", "ünïcode", extra={"payload": "secret-payload"})


@worker.handler("log.thread.v1")
def log_in_a_thread(run: Any) -> None:
    try:
        raise ValueError("as it happens")
    except ValueError:
        logger.exception("in a thread")


@worker.handler("log.batch.v1", batch_max=10)
async def log_of_a_batch(runs: list[Any]) -> None:
    logger.info("of a batch")


@worker.handler("log.after.v1")
async def log_afterwards(run: Any) -> None:
    asyncio.get_running_loop().call_later(0.05, logger.info, "at last")
    warnings.warn("a warning", stacklevel=1)
