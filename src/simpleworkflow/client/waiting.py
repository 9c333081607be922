"""One look for all who wait: a shared query, at first every 20 ms, later every 250 ms.

However many wait, there is one thread (or one task) that looks, only while somebody waits, and it borrows one
connection for each look.  While the database cannot be reached it keeps trying; each waiter's own time-out
ends its wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from simpleworkflow import statements
from simpleworkflow.client import verbs
from simpleworkflow.client.idle import begin_anew_after_fork
from simpleworkflow.database import Statement
from simpleworkflow.errors import DatabaseUnavailable, InvalidInput, RunNotFound, WaitTimeout
from simpleworkflow.model import Run, shown

__all__ = ["TOO_SHORT_SECONDS", "AsyncWaiting", "Waiting", "check_timeout"]

FIRST_PAUSE_SECONDS = 0.02
LAST_PAUSE_SECONDS = 0.25
# Between any two looks, however many begin to wait: they share the next one.
LEAST_PAUSE_SECONDS = 0.005
# A shorter wait looks for itself, once: it might be over before the shared look.
TOO_SHORT_SECONDS = 0.01
IDS_AT_ONCE = 5_000
RUNS_AT_ONCE = 50

log = logging.getLogger("simpleworkflow.client")

# What a waiter is told: the run that ended, None where there is no such run, or why nobody looks any more.
Told = Run | Exception | None


class _Future(Protocol):
    def done(self) -> bool: ...

    def set_result(self, result: Told, /) -> None: ...


F = TypeVar("F", bound=_Future)


@dataclass(slots=True)
class _Awaited(Generic[F]):
    """A run that somebody waits for; ``exists`` once a look has seen it."""

    future: F
    waiters: int = 0
    exists: bool = False


class _WaitingList(Generic[F]):
    """Who waits for which run, how to look, and how long to pause after it."""

    def __init__(self, make_future: Callable[[], F]) -> None:
        self.lock = threading.Lock()
        self._make_future = make_future
        self._awaited: dict[UUID, _Awaited[F]] = {}
        self._pause = FIRST_PAUSE_SECONDS
        self.trouble: DatabaseUnavailable | None = None

    @property
    def is_empty(self) -> bool:
        return not self._awaited

    def join(self, run_id: UUID) -> F:
        """Return the future that is told how the run ended; hold ``lock``."""
        awaited = self._awaited.get(run_id)
        if awaited is None:
            awaited = self._awaited[run_id] = _Awaited(self._make_future())
        awaited.waiters += 1
        self._pause = FIRST_PAUSE_SECONDS
        return awaited.future

    def leave(self, run_id: UUID, future: F) -> None:
        """Take back a ``join``; hold ``lock``."""
        awaited = self._awaited.get(run_id)
        if awaited is not None and awaited.future is future:
            awaited.waiters -= 1
            if not awaited.waiters:
                del self._awaited[run_id]

    def look(self) -> verbs.Plan[None]:
        """Ask which runs have ended, and tell those who wait for them."""
        with self.lock:
            known = [run_id for run_id, awaited in self._awaited.items() if awaited.exists]
            asked = [run_id for run_id, awaited in self._awaited.items() if not awaited.exists]
        for ids in _chunks(known, IDS_AT_ONCE):
            asked += yield statements.ended_runs(ids)
        for ids in _chunks(asked, RUNS_AT_ONCE):
            found = yield statements.get_runs(ids)
            runs: dict[UUID, Run] = {run.id: run for run in found}
            for run_id in ids:
                self._seen(run_id, runs.get(run_id))

    def _seen(self, run_id: UUID, run: Run | None) -> None:
        with self.lock:
            awaited = self._awaited.get(run_id)
            if awaited is None:
                return
            if run is None or run.has_ended:
                self._tell(run_id, run)
            else:
                awaited.exists = True

    def _tell(self, run_id: UUID, told: Told) -> None:
        awaited = self._awaited.pop(run_id)
        if not awaited.future.done():
            awaited.future.set_result(told)

    def tell_all(self, error: Exception) -> None:
        """Tell everybody why nobody looks any more."""
        with self.lock:
            for run_id in list(self._awaited):
                self._tell(run_id, error)

    def pause_after(self, error: Exception | None) -> float:
        """Return how long to pause after a look that ended well, or with ``error``."""
        if error is not None and not isinstance(error, DatabaseUnavailable):
            self.tell_all(error)
        elif error is not None and self.trouble is None:
            log.warning("waiting for runs goes on without the database: %s", error)
        self.trouble = error if isinstance(error, DatabaseUnavailable) else None
        pause, self._pause = self._pause, min(self._pause * 1.5, LAST_PAUSE_SECONDS)
        return pause


def _chunks(ids: list[UUID], size: int) -> Iterator[list[UUID]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _outcome(run_id: UUID, told: Told) -> Run:
    if told is None:
        raise RunNotFound(run_id, was_awaited=True)
    if isinstance(told, Exception):
        raise told
    return told


def _closed() -> DatabaseUnavailable:
    return DatabaseUnavailable("the client was closed while it waited for a run; the run goes on by itself")


def check_timeout(timeout: object) -> float | None:
    """Return the seconds to wait, None for ever.

    Raises:
        InvalidInput: it is no number of seconds, or negative.
    """
    if timeout is None or timeout == math.inf:
        return None
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidInput(f"timeout: expected seconds >= 0 or None, got {shown(timeout)}")
    return min(float(timeout), threading.TIMEOUT_MAX)


class Waiting:
    """Wait in threads; one more thread looks for all of them."""

    def __init__(self, run: Callable[[Statement[Any]], Any]) -> None:
        self._run = run
        self.begin_anew()
        begin_anew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget who waited in the process that forked this one."""
        self._list: _WaitingList[Future[Told]] = _WaitingList(Future)
        self._news = threading.Event()
        self._looker: threading.Thread | None = None

    def wait(self, run_id: UUID, timeout: float | None) -> Run:
        """Return the run when it has ended."""
        future = self._join(run_id)
        try:
            return _outcome(run_id, future.result(timeout))
        except TimeoutError:
            if future.done():  # in the same moment
                return _outcome(run_id, future.result())
            raise WaitTimeout(run_id, timeout or 0) from self._list.trouble
        finally:
            with self._list.lock:
                self._list.leave(run_id, future)

    def close(self) -> None:
        """End all waits with an error."""
        self._list.tell_all(_closed())
        self._news.set()

    def _join(self, run_id: UUID) -> Future[Told]:
        with self._list.lock:
            future = self._list.join(run_id)
            self._news.set()
            if self._looker is None:
                self._looker = threading.Thread(target=self._look_on, name="simpleworkflow-wait", daemon=True)
                self._looker.start()
        return future

    def _look_on(self) -> None:
        calm = threading.Event()  # never set: a pause that nothing shortens
        while True:
            self._news.clear()
            error = None
            try:
                verbs.follow(self._list.look(), self._run)
            except Exception as raised:  # noqa: BLE001 - told to those who wait, or tried again
                error = raised
            pause = self._list.pause_after(error)
            calm.wait(LEAST_PAUSE_SECONDS)
            self._news.wait(pause - LEAST_PAUSE_SECONDS)
            with self._list.lock:
                if self._list.is_empty:
                    self._looker = None
                    return


class AsyncWaiting:
    """Wait in tasks; one more task looks for all of them."""

    def __init__(self, run: Callable[[Statement[Any]], Awaitable[Any]]) -> None:
        self._run = run
        self.begin_anew()
        begin_anew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget who waited in the process that forked this one, or in another loop."""
        self._list: _WaitingList[asyncio.Future[Told]] = _WaitingList(
            lambda: asyncio.get_running_loop().create_future()
        )
        self._news = asyncio.Event()
        self._looker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, run_id: UUID, timeout: float | None) -> Run:
        """Return the run when it has ended."""
        if self._loop is not asyncio.get_running_loop():
            self.begin_anew()
            self._loop = asyncio.get_running_loop()
        future = self._join(run_id)
        try:
            await asyncio.wait([future], timeout=timeout)
            if not future.done():
                raise WaitTimeout(run_id, timeout or 0) from self._list.trouble
            return _outcome(run_id, future.result())
        finally:
            with self._list.lock:
                self._list.leave(run_id, future)

    async def close(self) -> None:
        """End all waits with an error."""
        self._list.tell_all(_closed())
        looker, self._looker = self._looker, None
        if looker is not None and looker.get_loop() is asyncio.get_running_loop():
            looker.cancel()
            await asyncio.wait([looker])

    def _join(self, run_id: UUID) -> asyncio.Future[Told]:
        with self._list.lock:
            future = self._list.join(run_id)
            self._news.set()
            if self._looker is None or self._looker.done():
                self._looker = asyncio.create_task(self._look_on(), name="simpleworkflow-wait")
        return future

    async def _look_on(self) -> None:
        while not self._list.is_empty:
            self._news.clear()
            error = None
            try:
                await verbs.follow_async(self._list.look(), self._run)
            except Exception as raised:  # noqa: BLE001 - told to those who wait, or tried again
                error = raised
            pause = self._list.pause_after(error)
            await asyncio.sleep(LEAST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(pause - LEAST_PAUSE_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
