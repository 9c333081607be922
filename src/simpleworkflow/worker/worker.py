"""``Worker``: which handlers, which patterns, how; and how to run it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from simpleworkflow.errors import WorkflowError
from simpleworkflow.metrics import Tally
from simpleworkflow.model import narrow_patterns
from simpleworkflow.resolve import resolve_database
from simpleworkflow.retry import Backoff, RetryPolicy
from simpleworkflow.worker.calling import Around
from simpleworkflow.worker.handlers import Handlers
from simpleworkflow.worker.heart import HeartProcess
from simpleworkflow.worker.options import HandlerOptions, WorkerOptions
from simpleworkflow.worker.process import Plan, WorkerProcess, new_worker_id
from simpleworkflow.worker.room import AHEAD_MAX
from simpleworkflow.worker.signals import Deadline
from simpleworkflow.worker.slots import SlotTable

__all__ = ["Worker"]

logger = logging.getLogger("simpleworkflow.worker")

# A coroutine that swallows its cancellation, or a thread that hangs, does not keep a program longer whose
# worker has ended: what they did has been given back.
LEAVE_SECONDS = 1.0
# Past its grace a program has this long to give back its runs and end.
STOP_SECONDS = 5.0

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[[], Any])


class Worker:
    """Claims runs of the types it has handlers for, and executes them.

        worker = Worker(concurrency=20)

        @worker.handler("billing.invoice.v1", timeout_seconds=60)
        async def invoice(run, payload: Invoice) -> dict: ...

        worker.run()

    ``patterns`` narrows what it claims; without it, everything it has a handler for.  ``concurrency`` is how
    many runs execute at once (100 on the loop; sync handlers are limited by ``threads``, 10 unless
    ``concurrency`` is given, cpu ones by ``cpu_processes``, the number of cores).  The other numbers are in
    seconds: a lease is extended every third of it, an idle worker looks again after ``poll_seconds``, and
    SIGTERM lets handlers end within ``grace_seconds``.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        patterns: Sequence[str] | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        cpu_processes: int = 0,
        lease_seconds: float = 30.0,
        poll_seconds: float = 2.0,
        grace_seconds: float = 30.0,
        database_url: str | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._threads = threads
        self._patterns = None if patterns is None else list(patterns)
        self._database_url = database_url
        self._handlers = Handlers()
        self._on_startup: list[Callable[[], Any]] = []
        self._on_shutdown: list[Callable[[], Any]] = []
        self._around: list[Around] = []
        self._wants_traceparents = False
        self._process: WorkerProcess | None = None
        self._options = WorkerOptions(
            concurrency=100 if concurrency is None else concurrency,
            threads=10 if threads is None else threads,
            cpu_processes=cpu_processes,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
            grace_seconds=grace_seconds,
        )

    # ── what it handles ────────────────────────────────────────────────────────────────────────────

    def handler(
        self,
        pattern: str,
        *,
        timeout_seconds: float | None = None,
        max_attempts: int | None = None,
        backoff: Backoff = None,
        never: tuple[type[BaseException], ...] = (),
        retry: RetryPolicy | None = None,
        cpu: bool = False,
        batch_max: int | None = None,
    ) -> Callable[[Function], Function]:
        """Return a decorator that makes a function the handler of a type, or of a prefix ending in ``%``.

        The function takes the run, and, if it has a second parameter, the payload read as its annotation
        says.  ``async def`` runs on the loop, ``def`` in a thread, ``cpu=True`` in a process that can be
        killed.  ``backoff``: seconds, a list of them, or a function of the attempt; ``never``: errors that
        are not tried again; or both as a ``retry`` policy.  ``max_attempts`` gives up earlier than the run.

        With ``batch_max`` one call executes up to so many runs of the pattern, as many as there are.  The function
        takes a list of runs, and, if it has a second parameter, a list of their payloads.  It returns None, or a list
        with a result or an error for each run; what it raises fails the attempts of all.

        Raises:
            TypeError: the function cannot be called with a run.
            ValueError: the pattern is none or taken, or an option is out of its range.
        """

        def add(function: Function) -> Function:
            self.register(
                pattern,
                function,
                timeout_seconds=timeout_seconds,
                max_attempts=max_attempts,
                backoff=backoff,
                never=never,
                retry=retry,
                cpu=cpu,
                batch_max=batch_max,
            )
            return function

        return add

    def register(
        self,
        pattern: str,
        executes: object,
        *,
        timeout_seconds: float | None = None,
        max_attempts: int | None = None,
        backoff: Backoff = None,
        never: tuple[type[BaseException], ...] = (),
        retry: RetryPolicy | None = None,
        cpu: bool = False,
        batch_max: int | None = None,
    ) -> None:
        """Let a ``WorkflowExecutor`` object, or a function, handle a type or prefix; options as in ``handler``.

        Raises:
            TypeError: ``executes`` cannot be called with a run, or both ``retry`` and its parts are given.
            ValueError: the pattern is none or taken, or an option is out of its range.
        """
        if retry is not None and (backoff is not None or never):
            raise TypeError("expected either retry= or backoff= and never=, got both")
        options = HandlerOptions(
            timeout_seconds=timeout_seconds,
            max_attempts=max_attempts,
            retry=retry or RetryPolicy(backoff=backoff, never=never),
            cpu=cpu,
            batch_max=batch_max,
        )
        self._handlers.add(pattern, executes, options)

    def on_startup(self, hook: Hook) -> Hook:
        """Call ``hook``, sync or async, before the first run is claimed; an error ends the worker."""
        self._on_startup.append(hook)
        return hook

    def on_shutdown(self, hook: Hook) -> Hook:
        """Call ``hook``, sync or async, after the last run has ended or was given back."""
        self._on_shutdown.append(hook)
        return hook

    def surround(self, around: Around, *, wants_traceparents: bool = False) -> None:
        """Let ``around`` surround each call of a handler: ``simpleworkflow.telemetry`` does, with a span.

        It is called with what was claimed, one run or those of a batch, and returns a context manager.  What that
        brings, if not None, is called with how each attempt ended.  ``wants_traceparents``: what was claimed has the
        producers' spans, which costs a question after each claim.
        """
        self._around.append(around)
        self._wants_traceparents |= wants_traceparents

    # ── running it ─────────────────────────────────────────────────────────────────────────────────

    def run(self, *, metrics_port: int | None = None, metrics_host: str = "127.0.0.1") -> None:
        """Work until SIGTERM or SIGINT, or until ``stop`` is called; a small process beside extends leases.

        With ``metrics_port`` that process also serves ``/metrics`` for Prometheus there (extra ``metrics``).

        This is a program's last call.  A database URL or schema that cannot be used ends the program with one
        line and the error's exit code; ``run_async`` raises instead.

        Raises:
            ValueError: there is no handler, or ``patterns`` leave none of them.
        """
        leaving = threading.Timer(LEAVE_SECONDS, _leave)
        leaving.daemon = True
        deadline = Deadline(grace_seconds=self._options.grace_seconds, stop_seconds=STOP_SECONDS)
        try:
            asyncio.run(self._run_and_leave(leaving, deadline, _listening(metrics_host, metrics_port)))
        except WorkflowError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a program's own last word
            raise SystemExit(error.exit_code) from None
        finally:
            leaving.cancel()

    async def _run_and_leave(
        self, leaving: threading.Timer, deadline: Deadline, listening: socket.socket | None
    ) -> None:
        try:
            await self._run(deadline.signalled, listening)
        finally:
            deadline.close()
            leaving.start()

    async def run_async(self, *, metrics_port: int | None = None, metrics_host: str = "127.0.0.1") -> None:
        """Do what ``run`` does, in a loop that is already running.

        While it works, SIGTERM, SIGINT and SIGHUP stop it; handlers that the program has set itself are called too,
        and are back afterwards.  To cancel it is the second signal: it gives back at once what it holds.

        Raises:
            ValueError: there is no handler, or ``patterns`` leave none of them.
            WorkflowError: the database's URL or schema cannot be used.
        """
        await self._run(lambda: None, _listening(metrics_host, metrics_port))

    async def _run(self, signalled: Callable[[], None], listening: socket.socket | None) -> None:
        database = resolve_database(self._database_url)
        plan, worker_id = self.plan(), new_worker_id()
        table = SlotTable.create(plan.options.concurrency + AHEAD_MAX)
        tally = Tally.create() if listening else None
        heart = HeartProcess(database, worker_id, os.getpid(), table, tally=tally, listening=listening)
        heart.tend()
        self._process = WorkerProcess(
            plan, database, table, worker_id, tend=heart.tend, signalled=signalled, tally=tally
        )
        try:
            await self._process.run()
        finally:
            self._process = None
            heart.close()
            table.close()

    def stop(self) -> None:
        """Stop gracefully; call it on the worker's loop.  The second call gives back at once what still runs."""
        if self._process is not None:
            self._process.stop()

    def plan(self, *, concurrency: int | None = None) -> Plan:
        """Return what a process of this worker is to do; ``concurrency`` overrides the worker's own.

        Raises:
            ValueError: there is no handler, or ``patterns`` leave none of them.
        """
        handled = self._handlers.patterns
        if not handled:
            raise ValueError(
                "the worker has no handler; add one with @worker.handler(type) or worker.register()"
            )
        wanted = handled if self._patterns is None else self._patterns
        patterns = narrow_patterns(handled, wanted)
        if not patterns:
            raise ValueError(
                f"patterns {self._patterns!r} leave none of the types that have a handler: {handled!r}"
            )
        return Plan(
            handlers=self._handlers,
            patterns=patterns,
            registered=sorted({name for one in handled for name in narrow_patterns([one], wanted)}),
            options=self._handlers.fitting(self._options, self._threads, concurrency or self._concurrency),
            on_startup=self._on_startup,
            on_shutdown=self._on_shutdown,
            around=self._around,
            is_traced=self._wants_traceparents,
        )


def _listening(host: str, port: int | None) -> socket.socket | None:
    if port is None:
        return None
    from simpleworkflow.metrics.serving import listen

    return listen(host, port)


def _leave() -> None:
    logger.error("the worker has ended, but handlers go on; the program exits without them")
    logging.shutdown()
    os._exit(1)
