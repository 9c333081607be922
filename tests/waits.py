"""Real interleavings: run something in a thread, and wait until the database says that it is blocked."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import psycopg

T = TypeVar("T")

DEADLINE_SECONDS = 20


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Start ``call`` in a thread of its own; its result or error comes from the future."""
    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def blocked(observer: psycopg.Connection, waiting: psycopg.Connection) -> None:
    """Return once the session of ``waiting`` waits for a lock that another session holds."""
    pid = waiting.info.backend_pid
    until(
        lambda: bool(observer.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()[0]),
        f"session {pid} waits for a lock",
    )


def until(is_so: Callable[[], bool], what: str) -> None:
    """Return once ``is_so``, asked again and again; fail after a deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {DEADLINE_SECONDS} s")
        time.sleep(0.002)
