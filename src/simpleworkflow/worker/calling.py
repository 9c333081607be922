"""How a handler is called: on the loop, in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from simpleworkflow.worker.context import AsyncWorkflowRun, WorkflowRun
from simpleworkflow.worker.cpu import CpuPool
from simpleworkflow.worker.slots import SlotTable, Verdict

if TYPE_CHECKING:
    from simpleworkflow.worker.engine import Execution

__all__ = ["Callers"]


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
                return await _within(execution, execution.handler.function(run, *arguments))
            case "thread":
                return await self._threads.call(execution, payload, arguments)
            case "cpu":
                return await self._cpu.call(execution, payload, arguments)

    def close(self) -> None:
        """End the processes; threads are daemons and end with the program."""
        self._cpu.close()


async def _within(execution: Execution, awaitable: Any) -> Any:
    seconds = execution.handler.options.timeout_seconds
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
    """Daemon threads, started as needed: one that hangs keeps neither the loop nor the end of the program."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle = 0
        self._started = 0
        self._free = asyncio.Semaphore(count)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    async def call(self, execution: Execution, payload: Any, arguments: tuple[Any, ...]) -> Any:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        run = WorkflowRun(execution.claimed, payload, _ThreadLink(execution, loop))
        function = execution.handler.function

        def settle(is_result: bool, value: Any) -> None:
            self._idle += 1
            self._free.release()
            if not ended.done():
                # Errors travel as values: a future cannot hold StopIteration, nor the loop a SystemExit.
                ended.set_result((is_result, value))

        def job() -> None:
            try:
                answer = (True, function(run, *arguments))
            except BaseException as error:  # noqa: BLE001
                answer = (False, error)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, *answer)

        self._submit(job)
        is_result, value = await _within(execution, asyncio.shield(ended))
        if is_result:
            return value
        raise value

    def _submit(self, job: Callable[[], None]) -> None:
        if self._idle:
            self._idle -= 1
        elif self._started < self._count:
            self._started += 1
            threading.Thread(target=self._serve, name=f"handler-{self._started}", daemon=True).start()
        self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            self._jobs.get()()


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
