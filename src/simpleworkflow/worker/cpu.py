"""Processes for handlers that compute: one each at a time, killed when it overruns or is not wanted any more.

Not a library's process pool: those share one queue among the processes, so that one handler cannot be
killed without harm to the others.  Here each process has a channel of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from simpleworkflow.codec import describe_error
from simpleworkflow.statements import Claimed
from simpleworkflow.worker.channel import Channel, ProcessEnd
from simpleworkflow.worker.context import WorkflowRun
from simpleworkflow.worker.exits import has_ended, open_end
from simpleworkflow.worker.forks import check_process, end_fork
from simpleworkflow.worker.lifeline import describe_exit
from simpleworkflow.worker.slots import SlotTable, Verdict

if TYPE_CHECKING:
    from simpleworkflow.worker.execution import Execution

__all__ = ["CpuPool"]

DEATH_SECONDS_MAX = 5.0
# A process that has not imported its handler's module by then hangs, and would keep its place for ever.
READY_SECONDS_MAX = 60.0


class CpuPool:
    """Up to ``count`` processes (0: one for each core), started when first needed."""

    def __init__(self, count: int, table: SlotTable) -> None:
        count = count or os.cpu_count() or 1
        self._table = table
        self._free = asyncio.Semaphore(count)
        self._idle: list[_CpuProcess] = []
        self._all: set[_CpuProcess] = set()

    async def call(self, execution: Execution, payload: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what the handler returns, from a process that is killed if this call is cancelled.

        Raises:
            TimeoutError: it ran longer than its time-out, and was killed.
            RuntimeError: the process died, or did not start.
            BaseException: whatever the handler raises.
        """
        # Before a process is involved: what cannot travel is the handler's fault alone.
        function = pickle.dumps(execution.handler.function)
        job = pickle.dumps(
            (function, tuple(execution.claimed), payload, arguments, execution.slot, execution.sequence)
        )
        async with self._free:
            process = self._take(function)
            scope = asyncio.timeout(None)
            try:
                await process.be_ready()
                seconds = execution.begin()
                async with (scope := asyncio.timeout(seconds)):
                    is_result, value = await process.execute(execution, job)
            except BaseException as error:
                self._all.discard(process)
                process.kill()
                if isinstance(error, TimeoutError) and scope.expired():
                    raise TimeoutError(f"the handler ran longer than its time-out of {seconds:g} s") from None
                raise
            self._idle.append(process)
        if is_result:
            return value
        raise value

    def close(self) -> None:
        """Kill all processes."""
        for process in self._all:
            process.kill()
        self._all.clear()
        self._idle.clear()

    def _take(self, function: bytes) -> _CpuProcess:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive():
                return process
            self._all.discard(process)
            process.kill()
        process = _CpuProcess(self._table, function)
        self._all.add(process)
        return process


class _CpuProcess:
    def __init__(self, table: SlotTable, function: bytes) -> None:
        # Spawned, not forked: a fork would inherit our connections.
        context = multiprocessing.get_context("spawn")
        _occupy_standard_descriptors()
        self._is_ready = False
        ours, theirs = socket.socketpair()
        # Nothing is ever said on it: its end tells the process that we are gone.
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(theirs, lifeline, table, function), daemon=True)
        try:
            self._process.start()
        except BaseException:
            ours.close()
            self._lifeline.close()
            raise
        finally:
            theirs.close()
            lifeline.close()
        self._end = None if self._process.pid is None else open_end(self._process.pid)
        self._channel = Channel(ours, self._process, self._end)

    def is_alive(self) -> bool:
        # The process itself is asked only where it must be: it is never seen to end where a handler ignores SIGCHLD.
        return self._process.is_alive() if self._end is None else not has_ended(self._end)

    async def be_ready(self) -> None:
        """Wait until the process takes jobs: its start is not the handler's time."""
        if self._is_ready:
            return
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                await self._receive()
        except TimeoutError:
            raise RuntimeError(
                f"the handler's process did not start within {READY_SECONDS_MAX:g} s; "
                "the import of its module hangs"
            ) from None
        self._is_ready = True

    async def execute(self, execution: Execution, job: bytes) -> tuple[bool, Any]:
        await self._send(job)
        while True:
            word, value = pickle.loads(await self._receive())  # noqa: S301 - our own process's
            if word == "heartbeat":
                await self._send(pickle.dumps(await execution.heartbeat(value)))
            elif word == "progress":
                await self._send(pickle.dumps(await execution.record_progress(value)))
            else:
                return word == "result", value

    async def _send(self, message: bytes) -> None:
        try:
            await self._channel.send(message)
        except (EOFError, OSError):
            raise self._death() from None

    async def _receive(self) -> bytes:
        try:
            return await self._channel.receive()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> RuntimeError:
        self._wait_for_end(1)
        return RuntimeError(f"the handler's process died: {describe_exit(self._process.exitcode)}")

    def kill(self) -> None:
        if self._lifeline.closed:
            return
        if self.is_alive():
            self._process.kill()
            self._wait_for_end(DEATH_SECONDS_MAX)
        self._channel.close()
        self._lifeline.close()
        if self._process.exitcode is not None:
            self._process.close()
        if self._end is not None:
            with suppress(OSError):  # a handler has closed it
                os.close(self._end)

    def _wait_for_end(self, seconds: float) -> None:
        if self._end is None:
            self._process.join(seconds)
        else:
            has_ended(self._end, seconds=seconds)


def _occupy_standard_descriptors() -> None:
    """Leave none of 0 to 2 free, which every new process inherits: a handler may have closed them.

    The other end of a pipe, opened as one of these, would be everybody's.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


# ── in the process ─────────────────────────────────────────────────────────────────────────────────


def _serve(theirs: socket.socket, lifeline: Connection, table: SlotTable, function: bytes) -> None:
    # Ctrl-C, and the end of a service, reach all its processes; the worker decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_worker, args=(lifeline,), daemon=True).start()
    # The handler's module is imported now: that is not yet the handler's time.
    with suppress(Exception):  # what goes wrong there is told by the job
        pickle.loads(function)  # noqa: S301 - our own worker's
    pid, channel = os.getpid(), ProcessEnd(theirs)
    with suppress(EOFError, OSError):  # the worker has gone
        channel.send(b"")  # ready
        while True:
            answer = _execute(channel.receive(), channel, table)
            end_fork(pid)
            channel.send(answer)


def _end_with_worker(lifeline: Connection) -> None:
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _execute(job: bytes, channel: ProcessEnd, table: SlotTable) -> bytes:
    link = None
    try:
        pickled, claimed, payload, arguments, slot, sequence = pickle.loads(job)  # noqa: S301 - our own worker's
        function = pickle.loads(pickled)  # noqa: S301
        link = _ChannelLink(channel, table, slot, sequence)
        return pickle.dumps(("result", function(WorkflowRun(Claimed(*claimed), payload, link), *arguments)))
    except BaseException as error:  # noqa: BLE001 - the worker judges it
        return pickle.dumps(("error", _sendable_error(error)))
    finally:
        if link is not None:
            link.close()


def _sendable_error(error: BaseException) -> BaseException:
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301
            return error
    except Exception:  # noqa: BLE001, S110 - it cannot travel; its description can
        pass
    return RuntimeError(describe_error(error))


class _ChannelLink:
    """How a run in a process reaches its worker: by the channel; what became of it is in shared memory.

    The channel is the next run's when the handler has returned, whatever threads it has left behind.
    """

    def __init__(self, channel: ProcessEnd, table: SlotTable, slot: int, sequence: int) -> None:
        self._channel = channel
        self._table = table
        self._slot = slot
        self._sequence = sequence
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._is_over = False

    def verdict(self) -> Verdict | None:
        return Verdict.LOST if self._is_over else self._table.verdict(self._slot, self._sequence)

    def heartbeat(self, seconds: float) -> Any:
        return self._ask("heartbeat", seconds, "lost")

    def record_progress(self, progress_json: str) -> Any:
        return self._ask("progress", progress_json, False)

    def close(self) -> None:
        """Say nothing any more; what a thread has asked is answered first."""
        if os.getpid() == self._pid:  # a fork may have copied the lock in another thread's hand
            with self._turn:
                self._is_over = True

    def _ask(self, word: str, value: object, when_over: object) -> Any:
        check_process(self._pid)
        with self._turn:
            if self._is_over:
                return when_over
            self._channel.send(pickle.dumps((word, value)))
            return pickle.loads(self._channel.receive())  # noqa: S301 - our own worker's
