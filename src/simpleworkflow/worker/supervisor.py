"""The supervisor: starts worker processes, extends their leases, starts the dead ones again.

It runs no user code, so nothing a handler does can keep it from its work.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic
from typing import Any

from simpleworkflow.logs import LogFormat
from simpleworkflow.maintenance import Board
from simpleworkflow.metrics import Tallies, Tally
from simpleworkflow.resolve import Database
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.exits import wait_for_exit
from simpleworkflow.worker.heart import EXPIRE_SECONDS, Heart, Watched
from simpleworkflow.worker.lifeline import GO, HURRY, STOP, Dependent, database_order, describe_exit
from simpleworkflow.worker.process import new_worker_id
from simpleworkflow.worker.room import AHEAD_MAX
from simpleworkflow.worker.signals import STOP_SIGNALS
from simpleworkflow.worker.slots import SlotTable

__all__ = ["Supervisor", "supervise"]

logger = logging.getLogger("simpleworkflow.supervisor")

CONCURRENCY_MAX_UNLESS_GIVEN = 1000
LOOK_SECONDS = 0.05
# How often a child is looked at that may hang.  What it has to be killed for, it announces seconds ahead, at the start
# of a run that has a time-out or of its own stop, so that the others need not be looked at so often.
CHILD_LOOK_SECONDS = 0.25
QUIET_LOOK_SECONDS = 2.0
SPARE_LOOK_SECONDS = 1.0
# A child that worked for so long, or that has ever claimed a run, did not die of its start.
STEADY_SECONDS = 10.0
RESTART_SECONDS_MAX = 5.0
STARTING_SECONDS_MAX = 60.0
SPARE_SECONDS = 60.0
# Past its grace a child has this long to give back its runs.
STOP_SECONDS = 5.0
# While stopping nobody waits long for a database that may be away; leases end by themselves.
EXPIRE_SECONDS_AT_STOP = 2.0


async def supervise(
    target: str,
    database: Database,
    *,
    processes: int = 1,
    concurrency: int | None = None,
    log_level: str = "INFO",
    log_format: LogFormat = "text",
    metrics: socket.socket | None = None,
) -> int:
    """Run the worker ``module:name`` in ``processes`` processes until SIGTERM or SIGINT; return the exit code.

    0: stopped as asked.  2: the target names no worker.  4: the schema is not the one needed.  The second
    signal gives back at once what still runs.  The end of the terminal (SIGHUP) is a signal like the others,
    unless it is ignored (nohup).  ``metrics``: a socket that listens, on which the metrics of all are served.
    """
    tallies = None if metrics is None else Tallies()
    supervisor = Supervisor(
        target, database, concurrency=concurrency, log_level=log_level, log_format=log_format, tallies=tallies
    )
    # Who started us may ignore it: then no child's exit code is told.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    if metrics is None or tallies is None:
        return await supervisor.run(processes)
    from simpleworkflow.metrics.serving import MetricsServer

    server = MetricsServer(metrics, tallies)
    logger.info("metrics are served at %s", server.url)
    try:
        return await supervisor.run(processes)
    finally:
        server.close()
        tallies.close()


class Supervisor:
    """Looks after some child processes, each with a worker.  ``tallies``: where what they count comes together."""

    def __init__(
        self,
        target: str,
        database: Database,
        *,
        concurrency: int | None,
        log_level: str,
        log_format: LogFormat = "text",
        tallies: Tallies | None = None,
    ) -> None:
        self._database = database
        self._tallies = tallies
        self._heart = Heart(database, tallies=tallies)
        self._board = Board.create()
        self._capacity = (concurrency or CONCURRENCY_MAX_UNLESS_GIVEN) + AHEAD_MAX
        self._is_stopping = False
        self._cannot_start = False
        self._spare: _Child | None = None
        self._spare_changed = asyncio.Event()
        self._children: list[_Child] = []
        self._exit_code = 0
        self._order = {
            "target": target,
            "database": database_order(database),
            "concurrency": concurrency,
            "log_level": log_level,
            "log_format": log_format,
        }

    def stop(self) -> None:
        """Stop the children gracefully; the second time, at once."""
        for child in self._children:
            child.ask_to_stop(at_once=self._is_stopping)
        self._is_stopping = True
        self._spare_changed.set()

    async def run(self, processes: int) -> int:
        """Look after ``processes`` children until all have ended; return the exit code."""
        services = [asyncio.create_task(self._heart.run()), asyncio.create_task(self._look_for_hanging())]
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(processes):
                    tasks.create_task(self._keep_child())
                if processes == 1:  # of several, the others take over at once
                    tasks.create_task(self._keep_spare())
        finally:
            for service in services:
                service.cancel()
                with suppress(asyncio.CancelledError):
                    await service
            await self._heart.close()
            self._board.close()
        return self._exit_code

    async def _keep_child(self) -> None:
        failures = 0
        while not self._is_stopping:
            child = self._take_spare() or self._start_child()
            if child is None:
                failures += 1
                await self._pause(_restart_seconds(failures))
                continue
            code = await self._look_after(child)
            last_words = child.watched.table.last_words()
            has_worked = child.watched.table.has_held() or child.age_seconds() > STEADY_SECONDS
            child.close()
            if last_words:
                self._give_up(*last_words)
            elif not self._is_stopping:
                # Whoever dies at work is replaced at once: its runs wait.  Attempts bound how often.
                failures = 0 if has_worked else failures + 1
                seconds = _restart_seconds(failures)
                logger.warning(
                    "worker %s ended (%s); starting another in %.1f s",
                    child.watched.worker_id,
                    describe_exit(code),
                    seconds,
                )
                await self._pause(seconds)

    async def _look_for_hanging(self) -> None:
        """End children that hang in their start, their stop, or a handler past its time-out; until cancelled."""
        while True:
            suspects = [child for child in self._children if child.may_hang()]
            for child in suspects:
                child.kill_if_it_hangs()
            await asyncio.sleep(CHILD_LOOK_SECONDS if suspects else QUIET_LOOK_SECONDS)

    async def _look_after(self, child: _Child) -> int:
        """Extend the child's leases until it ends, then take what it held; return its exit code."""
        child.begin_to_count()
        self._children.append(child)
        self._heart.watched.append(child.watched)
        code = await child.wait()
        self._children.remove(child)
        self._heart.watched.remove(child.watched)
        if child.has_started() and (code or child.watched.table.held()):
            # Whoever died, or left without a word, says nothing more: take its runs now instead of waiting
            # for their leases.
            await self._expire(child)
        elif child.has_started():  # most likely it has said so, unless the database was away just then
            await self._heart.say_stopped(child.watched.worker_id)
        return code

    def _start_child(self, *, is_spare: bool = False) -> _Child | None:
        """Return a new child; None: the system has no process, descriptor or memory left for one."""
        try:
            child = _Child(self._order | {"is_spare": is_spare}, self._capacity, self._board, self._tallies)
        except OSError as error:
            if not self._cannot_start:
                logger.error("a worker process cannot be started; trying again: %s", error)
            self._cannot_start = True
            return None
        self._cannot_start = False
        return child

    async def _keep_spare(self) -> None:
        """Have a child ready that has imported everything and waits: an import may take longer than recovery may."""
        while not self._is_stopping:
            if self._spare is None and any(child.has_started() for child in self._children):
                self._spare = self._start_child(is_spare=True)
            if self._spare is None:
                await asyncio.sleep(LOOK_SECONDS)
            elif self._spare.is_alive():
                self._spare_changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(SPARE_LOOK_SECONDS):
                        await self._spare_changed.wait()
            else:  # a module that can be imported only once, say
                logger.warning("the spare worker process ended; starting another in %g s", SPARE_SECONDS)
                self._drop_spare()
                await self._pause(SPARE_SECONDS)
        self._drop_spare()

    def _take_spare(self) -> _Child | None:
        spare, self._spare = self._spare, None
        self._spare_changed.set()
        if spare is not None and not spare.go():
            spare.close()
            return None
        return spare

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
            spare.close()

    async def _expire(self, child: _Child) -> None:
        failpoints.hit("expiring")
        seconds = EXPIRE_SECONDS_AT_STOP if self._is_stopping else EXPIRE_SECONDS
        await self._heart.expire(child.watched, seconds=seconds)

    def _give_up(self, exit_code: int, reason: str) -> None:
        if not self._exit_code:
            self._exit_code = exit_code
            print(f"wf: error: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - a program's last word
            self.stop()

    async def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while monotonic() < until and not self._is_stopping:
            await asyncio.sleep(LOOK_SECONDS)


def _restart_seconds(failures: int) -> float:
    return 0.0 if failures <= 1 else min(RESTART_SECONDS_MAX, 0.1 * 2**failures)


class _Child:
    def __init__(self, order: dict[str, Any], capacity: int, board: Board, tallies: Tallies | None) -> None:
        self._table = SlotTable.create(capacity)
        self._tallies = tallies
        self._tally = None if tallies is None else Tally.create()
        self._order = order | {"tally_fd": self._tally and self._tally.fd}
        self._started_at = monotonic()
        self._stop_by: float | None = None
        self._is_killed = False
        self._worker_id = ""
        try:
            fds = [self._table.fd, *([board.fd] if board.fd >= 0 else [])]
            named = [] if self._tally is None else [self._tally.fd]
            self._dependent = Dependent("child", self._personal_order, fds, named_fds=named)
        except BaseException:
            self._close_memory()
            raise
        self.watched = Watched(self._worker_id, self._dependent.process.pid, self._table)

    def _personal_order(self, pid: int) -> dict[str, Any]:
        self._worker_id = new_worker_id(pid)
        return self._order | {"worker_id": self._worker_id}

    async def wait(self) -> int:
        """Return the exit code as soon as the process has ended."""
        return await wait_for_exit(self._dependent.process)

    def may_hang(self) -> bool:
        """Return whether there is a time by which it has to have started, stopped, or ended a run."""
        return self._stop_by is not None or not self.has_started() or self._table.has_timeouts()

    def kill_if_it_hangs(self) -> None:
        """End a child that hangs in its start, its stop, or a handler past its time-out."""
        if not self._is_killed and self.is_alive() and (reason := self._reason_to_kill()):
            self._is_killed = True
            logger.error("worker %s is killed: %s", self.watched.worker_id, reason)
            self._dependent.process.kill()

    def _reason_to_kill(self) -> str | None:
        now = monotonic()
        if self._stop_by is not None and now > self._stop_by:
            return "it did not stop in time"
        if not self._table.lease_seconds:
            return "it hangs while starting" if now - self._started_at > STARTING_SECONDS_MAX else None
        overrun = self._table.overrun(now)
        return f"run {overrun[0].run_id} overran its time-out and blocks it" if overrun else None

    def ask_to_stop(self, *, at_once: bool) -> None:
        now = monotonic()
        if self._stop_by is None:
            self._stop_by = now + self._table.grace_seconds + STOP_SECONDS
        if at_once:
            self._stop_by = min(self._stop_by, now + STOP_SECONDS)
            self._dependent.say(HURRY)
        self._dependent.say(
            STOP
        )  # a handler may have taken the signal for itself; a child that starts knows no word
        # Once or often: whoever ends a service may signal all its processes, and that is no reason to hurry.
        with suppress(ProcessLookupError):
            self._dependent.process.send_signal(signal.SIGTERM)

    def has_started(self) -> bool:
        return self._table.lease_seconds > 0

    def age_seconds(self) -> float:
        return monotonic() - self._started_at

    def go(self) -> bool:
        """Let a spare work from now on; return whether it lives."""
        self._started_at = monotonic()
        self._dependent.say(GO)
        return self.is_alive()

    def is_alive(self) -> bool:
        return self._dependent.process.poll() is None

    def kill(self) -> None:
        self._dependent.process.kill()
        self._dependent.process.wait()

    def begin_to_count(self) -> None:
        if self._tallies is not None and self._tally is not None:
            self._tallies.add(self._tally, self._table.held_count)

    def close(self) -> None:
        self._dependent.close()
        self._close_memory()

    def _close_memory(self) -> None:
        if self._tallies is not None and self._tally is not None:
            self._tallies.retire(self._tally)  # before the table, which it reads
        self._table.close()
