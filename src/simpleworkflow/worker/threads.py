"""The threads that call sync handlers: who has done one call does the next, without a change of threads."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from simpleworkflow.logs import run_fields
from simpleworkflow.worker.execution import Execution, within_timeout
from simpleworkflow.worker.forks import end_fork

__all__ = ["Threads"]

logger = logging.getLogger("simpleworkflow.worker")

LEFT_PER_PLACE_MAX = 10


class _Job:
    """One call of a handler; on the loop its ``answer`` is set, or ``forget`` called if its thread was left."""

    __slots__ = ("answer", "forget", "function", "name", "thread")

    def __init__(
        self, name: str, function: Callable[[], Any], answer: asyncio.Future[tuple[bool, Any]]
    ) -> None:
        self.name = name
        self.function = function
        self.answer = answer
        self.thread: _Thread | None = None
        self.forget: Callable[[], None] | None = None


class Threads:
    """Daemon threads, started as needed: one that hangs keeps neither the loop nor the end of the program.

    Who has done a job takes the next that waits, and one more thread at a time is woken to look for work: it gets to it
    as soon as a handler waits for something, or has had the interpreter for long.  So handlers that are short need no
    change of threads for each, which costs more than they do.

    A thread whose handler went on past its time-out is left to itself, and its place is free again: it may
    hang for ever, and others shall not wait for it.  When too many were left so, the next ones keep their places:
    memory and descriptors are no less worth than places.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._answers = _Answers()
        self._started = 0
        self._left: set[_Thread] = set()
        self._left_max = LEFT_PER_PLACE_MAX * count
        # What follows is the threads' too.
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._idle: list[_Thread] = []
        self._alive = 0  # without those that were left
        self._is_anybody_looking = False

    async def call(self, executions: Sequence[Execution], function: Callable[[], Any]) -> Any:
        """Return what ``function`` returns, called in a thread for these executions, within their time-out.

        Raises:
            TimeoutError: it ran longer than its time-out.  The thread goes on.
            BaseException: whatever it raises.
        """
        await self._free.acquire()
        loop, first = asyncio.get_running_loop(), executions[0].claimed
        self._answers.loop = loop
        job = _Job(f"{first.type} {first.id}", function, loop.create_future())
        try:
            self._give(job)
            is_result, value = await within_timeout(executions, job.answer)
        except BaseException:
            self._leave(job, executions[0])
            raise
        self._free.release()
        if is_result:
            return value
        raise value

    def _give(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            looking = self._next_to_look()
        self._wake(looking)

    def _next_to_look(self) -> _Thread | None:
        """Return who is to be woken, if there is work that nobody is about to look for; the lock is held."""
        if self._is_anybody_looking or not self._jobs or not (self._idle or self._alive < self._count):
            return None  # whoever has done a job looks too, before it rests
        thread = self._idle.pop() if self._idle else self._new()
        self._is_anybody_looking = thread.is_looking = True
        return thread

    def _wake(self, thread: _Thread | None) -> None:
        try:
            if thread is not None:
                thread.wake()
        except RuntimeError:  # the system starts no more of them
            with self._lock:
                self._alive -= 1
                self._is_anybody_looking = False
            self._answers.let_hear()  # what was left to whoever would look
            raise

    def _new(self) -> _Thread:
        self._started += 1
        self._alive += 1
        return _Thread(f"handler-{self._started}", self._next_job, self._answers)

    def _next_job(self, thread: _Thread) -> _Job | None:
        """Return what this thread does next; None: it was left, and ends.  Called by it when it has done the last."""
        while True:
            with self._lock:
                thread.job = job = None
                if thread.is_left:
                    return None
                was_looking, thread.is_looking = thread.is_looking, False
                if was_looking:
                    self._is_anybody_looking = False
                if self._jobs:
                    thread.job = job = self._jobs.popleft()
                    job.thread = thread
                else:
                    self._idle.append(thread)
                looking = self._next_to_look()
                # What was said before a job is heard now, or by who gets to look because this one takes long.
                is_to_be_heard = was_looking or not self._is_anybody_looking
            with suppress(RuntimeError):  # then those that are there do it
                self._wake(looking)
            if is_to_be_heard:
                self._answers.let_hear()
            if job is not None:
                return job
            thread.rest()

    def _leave(self, job: _Job, execution: Execution) -> None:
        """Give up a call that is no longer waited for, whether it has begun or not."""
        with self._lock:
            thread = job.thread
            if thread is None:
                with suppress(ValueError):  # no thread could be started, say
                    self._jobs.remove(job)
            is_going_on = thread is not None and thread.job is job
            if thread is not None and is_going_on:
                thread.is_left = True
                self._alive -= 1
        if thread is None or not is_going_on:
            self._free.release()
            return
        keeps_place = len(self._left) >= self._left_max
        self._left.add(thread)

        def forget() -> None:
            self._left.discard(thread)
            if keeps_place:
                self._free.release()

        job.forget = forget
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
    """One thread: what it does, and whether it was woken to look for work, or left to itself."""

    def __init__(self, name: str, next_job: Callable[[_Thread], _Job | None], answers: _Answers) -> None:
        self.job: _Job | None = None
        self.is_looking = False
        self.is_left = False
        self._next_job = next_job
        self._answers = answers
        self._own_name = name
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._has_started = False

    @property
    def name(self) -> str:
        """What a stack dump shows of it: its number, and the type and id of the run that it executes."""
        return self._thread.name

    def wake(self) -> None:
        """Let the thread look for work."""
        if self._has_started:
            self._woken.put(None)
        else:
            self._has_started = True
            self._thread.start()

    def rest(self) -> None:
        """Return when woken; called by the thread itself."""
        self._thread.name = self._own_name
        self._woken.get()

    def _serve(self) -> None:
        pid = os.getpid()
        while job := self._next_job(self):
            self._thread.name = f"{self._own_name} {job.name}"
            try:
                answer = (True, job.function())
            except BaseException as error:  # noqa: BLE001 - the engine judges it
                answer = (False, error)
            end_fork(pid)
            self._answers.say(job, answer)
            del job, answer  # an idle thread holds on to no payload
        self._answers.let_hear()


class _Answers:
    """What the threads have to say to the loop: one wake-up for all who speak at once, it costs more than a handler."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._said: deque[tuple[_Job, tuple[bool, Any]]] = deque()
        self._is_called = False

    def say(self, job: _Job, answer: tuple[bool, Any]) -> None:
        self._said.append((job, answer))

    def let_hear(self) -> None:
        """Let the loop hear what was said."""
        if self._said and not self._is_called and self.loop is not None:
            self._is_called = True
            # Also if all was heard just now: who has set the word must see to it that it is taken back.
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self.loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._is_called = False  # before the first look: who speaks from now on calls again
        while self._said:
            # Errors travel as values: a future cannot hold StopIteration, nor the loop a SystemExit.
            job, answer = self._said.popleft()
            if not job.answer.done():
                job.answer.set_result(answer)
            if job.forget is not None:
                job.forget()
