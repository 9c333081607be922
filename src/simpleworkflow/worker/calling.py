"""How a handler is called: on the loop, in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from simpleworkflow.logs import run_fields
from simpleworkflow.statements import Claimed
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.context import AsyncWorkflowRun, WorkflowRun
from simpleworkflow.worker.cpu import CpuPool
from simpleworkflow.worker.forks import check_process, end_fork
from simpleworkflow.worker.slots import SlotTable, Verdict

if TYPE_CHECKING:
    from simpleworkflow.worker.execution import Execution

__all__ = ["Around", "Callers"]

# What surrounds each call of a handler, of one run or those of a batch; it may set variables of the context.
Around = Callable[[Sequence[Claimed]], AbstractContextManager[Any]]

logger = logging.getLogger("simpleworkflow.worker")

LEFT_PER_PLACE_MAX = 10


class Callers:
    """Calls handlers, each in the way it asks for, within its time-out.

    ``around`` surrounds attempts, if anything does; its context reaches handlers in threads, not those in processes.
    """

    def __init__(
        self, *, threads: int, cpu_processes: int, table: SlotTable, around: Around | None = None
    ) -> None:
        self.around = around
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
                result = await _within([execution], execution.handler.function(run, *arguments))
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
            result = await _within(executions, handler.function(runs, *read))
        else:
            thread_runs = [WorkflowRun(one.claimed, payload, _ThreadLink(one)) for one, payload in pairs]
            call = partial(handler.function, thread_runs, *read)
            result = await self._threads.call(executions, self._in_context(call))
        failpoints.hit("executed")
        return result

    def _in_context(self, call: Callable[[], Any]) -> Callable[[], Any]:
        return call if self.around is None else partial(copy_context().run, call)

    def close(self) -> None:
        """End the processes; threads are daemons and end with the program."""
        self._cpu.close()


async def _within(executions: Sequence[Execution], awaitable: Any) -> Any:
    seconds = None
    for execution in executions:
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
    hang for ever, and others shall not wait for it.  When too many were left so, the next ones keep their places:
    memory and descriptors are no less worth than places.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Thread] = []
        self._answers = _Answers()
        self._started = 0
        self._left: set[_Thread] = set()
        self._left_max = LEFT_PER_PLACE_MAX * count

    async def call(self, executions: Sequence[Execution], function: Callable[[], Any]) -> Any:
        await self._free.acquire()
        thread = None
        try:
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[tuple[bool, Any]] = loop.create_future()
            thread = self._idle.pop() if self._idle else self._start()
            first = executions[0].claimed
            thread.name = f"{thread.own_name} {first.type} {first.id}"
            thread.execute(function, ended)
            is_result, value = await _within(executions, asyncio.shield(ended))
        except BaseException:
            self._leave(thread, ended, executions[0]) if thread is not None else self._free.release()
            raise
        thread.name = thread.own_name
        self._idle.append(thread)
        self._free.release()
        if is_result:
            return value
        raise value

    def _start(self) -> _Thread:
        thread = _Thread(f"handler-{self._started + 1}", self._answers)
        self._started += 1
        return thread

    def _leave(self, thread: _Thread, ended: asyncio.Future[tuple[bool, Any]], execution: Execution) -> None:
        thread.end()
        keeps_place = len(self._left) >= self._left_max
        self._left.add(thread)

        def forget(_: object) -> None:
            self._left.discard(thread)
            if keeps_place:
                self._free.release()

        ended.add_done_callback(forget)
        if not keeps_place:
            self._free.release()
        logger.warning(
            "run %s: its thread (%s) goes on although the attempt is over; so do %d threads now%s",
            execution.claimed.id,
            thread.name,
            len(self._left),
            ", and no more places are freed until they end" if keeps_place else "",
            extra=run_fields(execution.claimed),
        )


class _Thread:
    def __init__(self, name: str, answers: _Answers) -> None:
        self._answers = answers
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[tuple[bool, Any]]] | None]
        self._jobs = queue.SimpleQueue()
        self.own_name = name
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """What a stack dump shows of it: its number, and the type and id of the run that it executes."""
        return self._thread.name

    @name.setter
    def name(self, name: str) -> None:
        self._thread.name = name

    def execute(self, function: Callable[[], Any], ended: asyncio.Future[tuple[bool, Any]]) -> None:
        self._jobs.put((function, ended))

    def end(self) -> None:
        """End the thread when it has done what it does now."""
        self._jobs.put(None)

    def _serve(self) -> None:
        pid = os.getpid()
        while job := self._jobs.get():
            function, ended = job
            try:
                answer = (True, function())
            except BaseException as error:  # noqa: BLE001 - the engine judges it
                answer = (False, error)
            end_fork(pid)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._answers.say(ended, answer)
            del job, function, ended, answer  # an idle thread holds on to no payload


class _Answers:
    """What the threads have to say to the loop: one wake-up for all who speak at once, it costs more than a handler."""

    def __init__(self) -> None:
        self._said: deque[tuple[asyncio.Future[tuple[bool, Any]], tuple[bool, Any]]] = deque()
        self._is_called = False

    def say(self, ended: asyncio.Future[tuple[bool, Any]], answer: tuple[bool, Any]) -> None:
        self._said.append((ended, answer))
        if not self._is_called:
            self._is_called = True
            ended.get_loop().call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._is_called = False  # before the first look: who speaks from now on calls again
        while self._said:
            # Errors travel as values: a future cannot hold StopIteration, nor the loop a SystemExit.
            ended, answer = self._said.popleft()
            if not ended.done():
                ended.set_result(answer)


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
