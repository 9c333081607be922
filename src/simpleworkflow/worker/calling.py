"""How a handler is called: on the loop, in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from typing import Any

from simpleworkflow.outcome import Outcome
from simpleworkflow.statements import Claimed
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.context import AsyncWorkflowRun, WorkflowRun
from simpleworkflow.worker.cpu import CpuPool
from simpleworkflow.worker.execution import Execution, within_timeout
from simpleworkflow.worker.forks import check_process
from simpleworkflow.worker.slots import SlotTable, Verdict
from simpleworkflow.worker.threads import Threads

__all__ = ["Around", "Callers"]

# What surrounds each call of a handler, of one run or those of a batch.  It may set variables of the context; what its
# context manager brings, if that is not None, is told how the attempts ended.
Around = Callable[[Sequence[Claimed]], AbstractContextManager[Callable[[Sequence[Outcome]], None] | None]]


class Callers:
    """Calls handlers, each in the way it asks for, within its time-out.

    ``around`` surrounds attempts, if anything does; its context reaches handlers in threads, not those in processes.
    """

    def __init__(
        self, *, threads: int, cpu_processes: int, table: SlotTable, around: Sequence[Around] = ()
    ) -> None:
        self.around = around
        self._threads = Threads(threads)
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
                result = await within_timeout([execution], execution.handler.function(run, *arguments))
            case "thread":
                thread_run = WorkflowRun(execution.claimed, payload, _ThreadLink(execution))
                call = partial(execution.handler.function, thread_run, *arguments)
                result = await self._threads.call([execution], self._in_context(call))
            case "cpu":
                result = await self._cpu.call(execution, payload, arguments)
        failpoints.hit("executed")
        return result

    async def call_batch(
        self, executions: Sequence[Execution], payloads: Sequence[Any], arguments: Sequence[Any]
    ) -> Any:
        """Return what the handler of a batch returns; it is given its runs, and what was read of their payloads.

        Raises:
            TimeoutError: it ran longer than its time-out.
            BaseException: whatever the handler raises.
        """
        handler = executions[0].handler
        read = (list(arguments),) if handler.takes_payload else ()
        pairs = zip(executions, payloads, strict=True)
        if handler.kind == "async":
            runs = [AsyncWorkflowRun(one.claimed, payload, one) for one, payload in pairs]
            result = await within_timeout(executions, handler.function(runs, *read))
        else:
            thread_runs = [WorkflowRun(one.claimed, payload, _ThreadLink(one)) for one, payload in pairs]
            call = partial(handler.function, thread_runs, *read)
            result = await self._threads.call(executions, self._in_context(call))
        failpoints.hit("executed")
        return result

    def _in_context(self, call: Callable[[], Any]) -> Callable[[], Any]:
        return partial(copy_context().run, call) if self.around else call

    def close(self) -> None:
        """End the processes; threads are daemons and end with the program."""
        self._cpu.close()


class _ThreadLink:
    """How a run in a thread reaches its worker: by the loop."""

    __slots__ = ("_execution", "_loop", "_pid")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    def verdict(self) -> Verdict | None:
        return self._execution.verdict()

    def heartbeat(self, seconds: float) -> str:
        check_process(self._pid)
        answer: Future[str] = asyncio.run_coroutine_threadsafe(self._execution.heartbeat(seconds), self._loop)
        return answer.result()

    def record_progress(self, progress_json: str) -> bool:
        check_process(self._pid)
        answer: Future[bool] = asyncio.run_coroutine_threadsafe(
            self._execution.record_progress(progress_json), self._loop
        )
        return answer.result()
