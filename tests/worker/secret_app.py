"""A worker whose payloads, results and errors are marked: nothing of them may be in a log."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from simpleworkflow import RetryAfter, Worker

worker = Worker(lease_seconds=2, poll_seconds=0.2, grace_seconds=2, threads=4, cpu_processes=1)


@dataclass
class Card:
    number: int


@worker.handler("secret.succeed.v1")
async def succeed(_: Any, payload: dict[str, Any]) -> Any:
    return {"answer": f"Marked-result of {payload['word']}"}


@worker.handler("secret.fail.v1", max_attempts=1)
def fail(_: Any, payload: dict[str, Any]) -> None:
    raise ValueError(f"Marked-error with {payload['word']}")


@worker.handler("secret.retry.v1")
async def again(run: Any, payload: dict[str, Any]) -> None:
    if run.attempt == 1:
        raise RetryAfter(0, f"Marked-error with {payload['word']}")


@worker.handler("secret.typed.v1")
async def typed(_: Any, payload: Card) -> int:
    return payload.number


@worker.handler("secret.cpu.v1", cpu=True, max_attempts=1)
def compute(_: Any, payload: dict[str, Any]) -> None:
    raise LookupError(f"Marked-error with {payload['word']}")


@worker.handler("secret.overrun.v1", timeout_seconds=0.2, max_attempts=1)
def overrun(_: Any, payload: dict[str, Any]) -> str:
    time.sleep(0.5)
    return f"Marked-result of {payload['word']}"


@worker.handler("secret.cancel.v1")
async def wait(_: Any, payload: dict[str, Any]) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise ValueError(f"Marked-error with {payload['word']}") from None


@worker.handler("secret.unstorable.v1", max_attempts=1)
async def unstorable(_: Any, payload: dict[str, Any]) -> Any:
    return {payload["word"]: object()}


@worker.handler("secret.refused.v1", max_attempts=1)
async def refused(_: Any, payload: dict[str, Any]) -> Any:
    return f"Refused Marked-result of {payload['word']}"
