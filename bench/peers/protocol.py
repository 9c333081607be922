"""What every Python program of a system shares: the lines of bench/systems.py, spoken with the standard library."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

_starts: list[int] = []


class Producer(Protocol):
    """Records jobs; both may be coroutines."""

    def submit(self, payload: dict[str, int]) -> Awaitable[object] | object:
        """Record one job."""

    def bulk(self, payloads: list[dict[str, int]]) -> Awaitable[object] | object:
        """Record many."""


def started(payload: dict[str, Any]) -> None:
    """Leave a line for a job with a tag; do nothing for others."""
    if payload:
        if not _starts:
            _starts.append(os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_APPEND))
        os.write(_starts[0], f"{payload['i']} {time.monotonic():.7f} {os.getpid()}\n".encode())


def in_threads(count: int, drain: Callable[[str], None], url: str) -> None:
    """Run a loop in so many threads; where one ends, all of the program does."""

    def loop() -> None:
        try:
            drain(url)
        except BaseException:  # noqa: BLE001 - whatever it was, it is said and the program ends
            traceback.print_exc()
        os._exit(1)

    for _ in range(count):
        threading.Thread(target=loop).start()


def main(setup: Callable[[str], Any], producer: Callable[[str], Any], worker: Callable[[str], Any]) -> None:
    """Do what the command line says; functions that are coroutines run on a loop."""
    command, url = sys.argv[-2:]
    if command == "producer":
        asyncio.run(_produce(producer, url))
        return
    result = {"setup": setup, "worker": worker}[command](url)
    if inspect.iscoroutine(result):
        asyncio.run(result)


async def _produce(make: Callable[[str], Any], url: str) -> None:
    producer: Producer = await _value(make(url))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, number = line.split()
        print(f"{await _answer(producer, verb, int(number)):.7f}", flush=True)


async def _answer(producer: Producer, verb: str, number: int) -> float:
    payloads: list[dict[str, int]] = [{} for _ in range(number)]
    started_at = time.monotonic()
    if verb == "one":
        await _value(producer.submit({"i": number}))
        return started_at
    if verb == "submit":
        for payload in payloads:
            result = producer.submit(payload)
            if inspect.isawaitable(result):
                await result
    elif verb == "bulk":
        await _value(producer.bulk(payloads))
    else:
        await _value(producer.bulk([{"i": 0}] * number))
    return time.monotonic() - started_at


async def _value(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
