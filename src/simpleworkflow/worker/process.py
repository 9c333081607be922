"""A worker process from its start to its end: connections, hooks, services, signals."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from simpleworkflow.codec import describe_error
from simpleworkflow.database import connect, cut_after, translated
from simpleworkflow.errors import DatabaseUnavailable, WorkflowError
from simpleworkflow.maintenance import Board, Expiry, Folding, Operations, Rests, repeat
from simpleworkflow.metrics import Tally
from simpleworkflow.migrate import check_schema
from simpleworkflow.notifier import Notifier
from simpleworkflow.resolve import Database
from simpleworkflow.session import Session
from simpleworkflow.statements import register_types
from simpleworkflow.summaries import WorkerState
from simpleworkflow.worker.calling import Around, Callers
from simpleworkflow.worker.cancels import Cancels
from simpleworkflow.worker.engine import Engine
from simpleworkflow.worker.forks import end_forks_of_loop
from simpleworkflow.worker.handlers import Handlers
from simpleworkflow.worker.link import Link, Outage
from simpleworkflow.worker.options import WorkerOptions
from simpleworkflow.worker.presence import Presence
from simpleworkflow.worker.signals import heeded
from simpleworkflow.worker.slots import SlotTable

__all__ = ["HookFailed", "Plan", "WorkerProcess", "new_worker_id"]

logger = logging.getLogger("simpleworkflow.worker")

TEND_SECONDS = 0.25
CANCEL_AGAIN_SECONDS = 0.3
# A server that accepts a connection and is silent then is asked again on another one.
CHECK_SECONDS = 10.0
# Past its grace a stopping worker has this long to give back what is left.
RELEASE_SECONDS = 4.0


class HookFailed(WorkflowError):
    """A start-up hook raised; the worker does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker process is to do, whoever started it.

    ``patterns`` are what it claims by, none covering another; ``registered`` is what an operator sees, one
    entry for each handler.  ``around`` surrounds attempts; ``is_traced``: it wants the producers' spans.
    """

    handlers: Handlers
    patterns: Sequence[str]
    registered: Sequence[str]
    options: WorkerOptions
    on_startup: Sequence[Callable[[], Any]] = field(default=())
    on_shutdown: Sequence[Callable[[], Any]] = field(default=())
    around: Sequence[Around] = field(default=())
    is_traced: bool = False


def new_worker_id(pid: int | None = None) -> str:
    """Return a worker id for one boot of a process: ``host:pid:random``."""
    return f"{socket.gethostname()}:{pid or os.getpid()}:{secrets.token_hex(4)}"


class WorkerProcess:
    """Runs one plan until it is stopped.

    ``tend`` is called a few times a second: the heart's keeper, say; ``signalled`` at each signal, even when the
    loop is blocked.  ``is_child``: a supervisor says when to hurry; signals, however many, only begin the stop.
    ``board``: what it shares with other children.  ``tally``: where it counts what it does, if anybody asks.
    ``around``: what surrounds attempts, inside of what the plan has for that.
    """

    def __init__(
        self,
        plan: Plan,
        database: Database,
        table: SlotTable,
        worker_id: str,
        *,
        tend: Callable[[], None] | None = None,
        signalled: Callable[[], None] = lambda: None,
        is_child: bool = False,
        board: Board | None = None,
        tally: Tally | None = None,
        around: Sequence[Around] = (),
    ) -> None:
        self._plan = plan
        self._database = database
        self._table = table
        self._tend = tend
        self._signalled = signalled
        self._is_child = is_child
        self._board = board or Board()  # where no other process shares it
        self.worker_id = worker_id
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._tally = tally
        self._outage = outage = Outage(tally=tally)
        deadline = max(2.0, plan.options.lease_seconds / 3)
        self._links = [
            Link(database, outage, deadline_seconds=deadline, worker_id=worker_id) for _ in range(2)
        ]
        self._side = Link(database, outage, deadline_seconds=deadline)
        self._callers = Callers(
            threads=plan.options.threads,
            cpu_processes=plan.options.cpu_processes,
            table=table,
            around=[*plan.around, *around],
        )
        self._engine = Engine(
            worker_id=worker_id,
            handlers=plan.handlers,
            patterns=plan.patterns,
            options=plan.options,
            table=table,
            links=self._links,
            side=self._side,
            callers=self._callers,
            board=self._board,
            tally=tally,
            is_traced=plan.is_traced,
        )
        self._presence = Presence(
            self._side, worker_id, patterns=plan.patterns, concurrency=plan.options.concurrency
        )

    def stop(self) -> None:
        """Stop gracefully; the second time, give back at once what still runs."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def stop_gracefully(self) -> None:
        """Stop gracefully, however often it is called."""
        self._stopping.set()

    def hurry(self) -> None:
        """Stop, and give back at once what still runs."""
        self._stopping.set()
        self._hurrying.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            SchemaMismatch: the database's schema is not the one that this package needs.
        """
        loop = asyncio.get_running_loop()
        end_forks_of_loop(loop)
        if self._is_child:
            loop.add_signal_handler(signal.SIGTERM, self.stop_gracefully)
            await self._run()
            return
        with heeded(loop, self.stop, self._signalled):
            await self._run()

    async def _run(self) -> None:
        try:
            if await self._start():
                await self._work()
        finally:
            self._callers.close()
            for link in (*self._links, self._side):
                await link.close()

    async def _start(self) -> bool:
        """Return whether the worker started; False: it was stopped before."""
        self._table.announce(
            lease_seconds=self._plan.options.lease_seconds, grace_seconds=self._plan.options.grace_seconds
        )
        if self._tally is not None:
            self._tally.set_capacity(self._plan.options.concurrency)
        starting = asyncio.create_task(self._prepare())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        await _end(stopped)
        if not starting.done():
            await _end(starting)
            return False
        starting.result()
        return True

    async def _prepare(self) -> None:
        while True:
            try:
                await _in_daemon_thread(_check_schema, self._database)
                break
            except DatabaseUnavailable as error:
                self._side.say_away(error)
                await self._side.pause()
        await self._side.ask_until_answered(register_types(list(self._plan.registered)))
        for hook in self._plan.on_startup:
            await _start_hook(hook)

    async def _work(self) -> None:
        operations = Operations(self._side, self.worker_id)
        expiry = Expiry(
            self._side,
            lease_seconds=self._plan.options.lease_seconds,
            board=self._board,
            on_expired=self._expired,
            on_operations=operations.wake,
        )
        services = (expiry, operations, Folding(self._side, board=self._board), self._presence)
        rests = Rests()
        self._engine.exchanger.on_awake = rests.end
        tasks = [asyncio.create_task(repeat(service, rests)) for service in services]
        tasks.append(asyncio.create_task(self._keep_tending()))
        if not self._database.is_pooled:
            cancels = Cancels(self._engine)
            notifier = Notifier(
                self._database.conninfo,
                self._database.schema,
                self._plan.patterns,
                on_wake=self._engine.exchanger.wake,
                on_cancelled=cancels.heard,
                is_database_away=lambda: self._outage.is_on,
            )
            self._engine.exchanger.set_hungry = notifier.set_hungry
            listening = (*notifier.services(), cancels.run())
            tasks += [asyncio.create_task(service) for service in listening]
        working = asyncio.create_task(self._engine.run())
        stopped = asyncio.create_task(self._stopping.wait())
        logger.info("worker %s started for %s", self.worker_id, " ".join(self._plan.patterns))
        try:
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            await self._settle(working)
        except asyncio.CancelledError:
            if (
                not self._is_child
            ):  # whoever runs us in its loop wants us gone; in a child only a handler can do that
                self.hurry()
                await self._settle(working)
            raise
        finally:
            await _cancel_all([stopped, working, *tasks])
            for hook in self._plan.on_shutdown:
                await _stop_hook(hook)
            await self._say("stopped")
            logger.info("worker %s stopped", self.worker_id)
        if not working.cancelled():
            working.result()

    def _expired(self, count: int) -> None:
        if self._tally is not None:
            self._tally.count_expired(count)
        self._engine.exchanger.wake()

    async def _settle(self, working: asyncio.Task[None]) -> None:
        self._engine.stop()
        # Beside the rest, and only where it may last.
        telling = asyncio.create_task(self._say("stopping")) if self._engine.held_count() else None
        grace = asyncio.create_task(self._engine.wait_until_idle())
        hurried = asyncio.create_task(self._hurrying.wait())
        await asyncio.wait(
            [grace, hurried], timeout=self._plan.options.grace_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (grace, hurried):
            task.cancel()
        # Whatever hangs, we are gone RELEASE_SECONDS past the grace.
        releasing = asyncio.create_task(self._engine.release_all())
        await asyncio.wait([releasing, working], timeout=RELEASE_SECONDS)
        releasing.cancel()
        if telling is not None:
            await telling

    async def _say(self, state: WorkerState) -> None:
        if not self._outage.is_on:
            await self._presence.say(state)

    async def _keep_tending(self) -> None:
        while self._tend is not None:
            self._tend()
            await asyncio.sleep(TEND_SECONDS)


def _check_schema(database: Database) -> None:
    session = Session(is_pooled=database.is_pooled, statement_seconds=CHECK_SECONDS)
    try:
        connecting = connect(database.conninfo, session=session)
        with translated(), connecting as conn, cut_after(conn, CHECK_SECONDS):
            check_schema(conn, database.schema)
    except psycopg.errors.QueryCanceled as error:  # by an operator, or because it took too long
        raise DatabaseUnavailable(f"the database does not serve us: {error}") from None


async def _start_hook(hook: Callable[[], Any]) -> None:
    try:
        await _call(hook)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        name = getattr(hook, "__qualname__", repr(hook))
        raise HookFailed(f"the start-up hook {name} raised {describe_error(error)}") from error


async def _stop_hook(hook: Callable[[], Any]) -> None:
    try:
        await _call(hook)
    except Exception:  # the others are called all the same
        logger.exception("a shutdown hook failed")


async def _call(hook: Callable[[], Any]) -> None:
    answer = hook()
    if inspect.isawaitable(answer):
        await answer


async def _in_daemon_thread(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function that may hang, in a thread that then keeps neither the loop nor the program."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(error)

    def call() -> None:
        error: BaseException | None = None
        try:
            function(*arguments)
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=call, name="start", daemon=True).start()
    if error := await ended:
        raise error


async def _cancel_all(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended, whatever they end with.

    Again and again: before Python 3.12 ``asyncio.wait_for``, which the driver uses, may swallow a cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for it; its own error, if it had one, goes on."""
    if not task.done():
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
