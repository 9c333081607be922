"""How a handler is called: on the loop, in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from simpleworkflow.worker import failpoints
from simpleworkflow.worker.context import AsyncWorkflowRun, WorkflowRun
from simpleworkflow.worker.cpu import CpuPool
from simpleworkflow.worker.slots import SlotTable, Verdict

if TYPE_CHECKING:
    from simpleworkflow.worker.execution import Execution

__all__ = ["Callers"]

logger = logging.getLogger("simpleworkflow.worker")


class Callers:
    """Calls handlers, each in the way it asks for, within its time-out."""

    def __init__(self, *, threads: int, cpu_processes: int, table: SlotTable) -> None:
        self._threads = _Threads(threads)
        self._cpu = CpuPool(cpu_processes, table)

    async def call(self, execution: Execution, payload: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what the handler returns.

        Raises:
            TimeoutError: it ran longer than its time-out.  An async handler is cancelled, a process killed;
                a thread goes on, but whatever it still does for its run is refused.
            BaseException: whatever the handler raises.
        """
        match execution.handler.kind:
            case "async":
                run = AsyncWorkflowRun(execution.claimed, payload, execution)
                result = await _within(execution, execution.handler.function(run, *arguments))
            case "thread":
                result = await self._threads.call(execution, payload, arguments)
            case "cpu":
                result = await self._cpu.call(execution, payload, arguments)
        failpoints.hit("executed")
        return result

    def close(self) -> None:
        """End the processes; threads are daemons and end with the program."""
        self._cpu.close()


async def _within(execution: Execution, awaitable: Any) -> Any:
    seconds = execution.begin()
    if seconds is None:
        return await awaitable
    try:
        async with asyncio.timeout(seconds) as scope:
            return await awaitable
    except TimeoutError:
        if scope.expired():
            raise TimeoutError(f"the handler ran longer than its time-out of {seconds:g} s") from None
        raise


class _Threads:
    """Daemon threads, started as needed: one that hangs keeps neither the loop nor the end of the program.

    A thread whose handler went on past its time-out is left to itself, and its place is free again: it may
    hang for ever, and others shall not wait for it.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Thread] = []
        self._started = 0
        self._left = 0

    async def call(self, execution: Execution, payload: Any, arguments: tuple[Any, ...]) -> Any:
        async with self._free:
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[tuple[bool, Any]] = loop.create_future()
            run = WorkflowRun(execution.claimed, payload, _ThreadLink(execution, loop))
            thread = self._idle.pop() if self._idle else self._start()
            thread.execute(partial(execution.handler.function, run, *arguments), ended)
            try:
                is_result, value = await _within(execution, asyncio.shield(ended))
            except BaseException:
                self._leave(thread, execution)
                raise
            self._idle.append(thread)
        if is_result:
            return value
        raise value

    def _start(self) -> _Thread:
        self._started += 1
        return _Thread(f"handler-{self._started}")

    def _leave(self, thread: _Thread, execution: Execution) -> None:
        self._left += 1
        thread.end()
        logger.warning(
            "run %s: its thread goes on although the attempt is over; %d were left so",
            execution.claimed.id,
            self._left,
        )


class _Thread:
    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[tuple[bool, Any]]] | None]
        self._jobs = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def execute(self, function: Callable[[], Any], ended: asyncio.Future[tuple[bool, Any]]) -> None:
        self._jobs.put((function, ended))

    def end(self) -> None:
        """End the thread when it has done what it does now."""
        self._jobs.put(None)

    def _serve(self) -> None:
        while job := self._jobs.get():
            function, ended = job
            try:
                answer = (True, function())
            except BaseException as error:  # noqa: BLE001 - the engine judges it
                answer = (False, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                ended.get_loop().call_soon_threadsafe(_settle, ended, answer)
            del job, function, ended, answer  # an idle thread holds on to no payload


def _settle(ended: asyncio.Future[tuple[bool, Any]], answer: tuple[bool, Any]) -> None:
    # Errors travel as values: a future cannot hold StopIteration, nor the loop a SystemExit.
    if not ended.done():
        ended.set_result(answer)


class _ThreadLink:
    """How a run in a thread reaches its worker: by the loop."""

    __slots__ = ("_execution", "_loop")

    def __init__(self, execution: Execution, loop: asyncio.AbstractEventLoop) -> None:
        self._execution = execution
        self._loop = loop

    def verdict(self) -> Verdict | None:
        return self._execution.verdict()

    def heartbeat(self, seconds: float) -> str:
        answer: Future[str] = asyncio.run_coroutine_threadsafe(self._execution.heartbeat(seconds), self._loop)
        return answer.result()

    def record_progress(self, progress_json: str) -> bool:
        answer: Future[bool] = asyncio.run_coroutine_threadsafe(
            self._execution.record_progress(progress_json), self._loop
        )
        return answer.result()
