"""The heart: extends leases from outside the process whose handlers hold them.

It runs no user code.  In a supervisor it beats for all children; beside a user's own program it is the small
process ``python -m simpleworkflow.worker heart``, which also takes the runs of that program when it dies.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import psycopg

from simpleworkflow.errors import DatabaseUnavailable, WorkflowError
from simpleworkflow.metrics import Tallies, Tally
from simpleworkflow.notifier import say_vacant
from simpleworkflow.resolve import Database
from simpleworkflow.statements import end_workers, expire_runs, heartbeat_runs
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.lifeline import BYE, Dependent, database_order, read_order, watch_lifeline
from simpleworkflow.worker.link import Link, Outage, has_no_session
from simpleworkflow.worker.presence import BEAT_SECONDS, LAST_WORD_SECONDS, RollCall
from simpleworkflow.worker.slots import HeldSlot, SlotTable, Verdict

__all__ = ["EXPIRE_SECONDS", "Heart", "HeartProcess", "Watched"]

logger = logging.getLogger("simpleworkflow.heart")

STARTING_SECONDS = 0.2
EXPIRE_SECONDS = 10.0
# The server ends the sessions of a process that died within milliseconds, unless it is still executing a statement, or
# a fork of the process lives on.
SESSIONS_SECONDS_MAX, SESSIONS_LOOK_SECONDS = 0.5, 0.02
# A beat that is not answered in this part of a lease is sent again on another connection.
DEADLINE_PART = 0.3
# All leases are extended every third of the shortest; sooner again, where a row was locked by somebody's transaction.
BEAT_PART, BEAT_AGAIN_PART = 1 / 3, 1 / 12
DEADLINE_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A worker process whose leases are extended, and the table of what it holds."""

    worker_id: str
    pid: int
    table: SlotTable


class Heart:
    """Beats for the worker processes it watches, every third of their shortest lease.

    ``is_beside``: it belongs to a program whose worker says itself when the database is away.  ``tallies``: where it
    counts what it does, if anybody asks.
    """

    def __init__(
        self, database: Database, *, is_beside: bool = False, tallies: Tallies | None = None
    ) -> None:
        self.watched: list[Watched] = []
        self._schema = database.schema
        self._is_pooled = database.is_pooled
        self._tallies = tallies
        outage = Outage(is_silent=is_beside, tally=tallies.own if tallies else None)
        self._link = Link(database, outage, deadline_seconds=DEADLINE_SECONDS_MAX)
        self._roll_call = RollCall()
        self._has_beaten = False
        self._has_locked = False

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            seconds = await self._beat_for_all()
            beat_at = monotonic() + seconds
            # After the beats, in the time that the heart would sleep: no beat is later for it.
            await self._call_roll()
            while (left := beat_at - monotonic()) > BEAT_SECONDS:
                await asyncio.sleep(BEAT_SECONDS)
                await self._call_roll()
            await asyncio.sleep(left)

    async def _beat_for_all(self) -> float:
        """Extend all leases; return in how many seconds to do it again."""
        leases = [one.table.lease_seconds for one in self.watched if one.table.lease_seconds]
        if leases:
            self._link.deadline_seconds = max(0.5, min(DEADLINE_SECONDS_MAX, DEADLINE_PART * min(leases)))
        self._has_beaten = self._has_locked = False
        # Who holds something first; a list of its own, since the other may change meanwhile.
        for one in sorted(self.watched, key=lambda one: one.table.is_empty()):
            while one in self.watched and not await self._beat_whatever_comes(one):
                await self._link.pause()
        part = BEAT_AGAIN_PART if self._has_locked else BEAT_PART
        return part * min(leases) if leases else STARTING_SECONDS

    async def _call_roll(self) -> None:
        """Say which workers are alive; one that is stopped does not say so, nor does one that only starts."""
        if self._roll_call.is_due():
            alive = [one for one in self.watched if one.table.lease_seconds and not _is_stopped(one.pid)]
            await self._roll_call.call(self._link, {one.worker_id: one.table.held_count() for one in alive})

    async def expire(self, dead: Watched, *, seconds: float = EXPIRE_SECONDS) -> None:
        """Take at once the runs of a worker known dead; within some seconds, else by their leases' end."""
        with suppress(TimeoutError, WorkflowError, psycopg.Error):
            async with asyncio.timeout(seconds):
                await self._wait_for_sessions(dead.worker_id)
                taken: dict[str, str] = {}
                # A call takes no more than a thousand; and a claim may have been on its way.
                while more := await self._link.ask_until_answered(expire_runs([dead.worker_id], list(taken))):
                    taken |= more
                await self._link.ask_until_answered(say_vacant(self._schema))
                if taken and self._tallies is not None:
                    self._tallies.own.count_expired(len(taken))
                if taken:
                    logger.warning("runs taken from the dead worker %s: %d", dead.worker_id, len(taken))
                await self._link.ask(end_workers([dead.worker_id], "lost"))

    async def _wait_for_sessions(self, worker_id: str) -> None:
        """Let what a dead worker has sent come to its end, so that it claims nothing any more; but not for long."""
        until = monotonic() + (0 if self._is_pooled else SESSIONS_SECONDS_MAX)
        with suppress(WorkflowError, psycopg.Error):
            while monotonic() < until and not await self._link.ask(has_no_session(worker_id)):
                await asyncio.sleep(SESSIONS_LOOK_SECONDS)

    async def say_stopped(self, worker_id: str) -> None:
        """Say that a worker has ended as it should, unless that takes long."""
        with suppress(TimeoutError, WorkflowError, psycopg.Error):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._link.ask(end_workers([worker_id], "stopped"))

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _beat_whatever_comes(self, one: Watched) -> bool:
        """Return whether the beat was done.  Nothing ends the heart: every lease depends on it."""
        try:
            await self._beat(one)
        except DatabaseUnavailable:
            return False  # its link has said so
        except Exception as error:  # noqa: BLE001 - whatever the database or the system says, the heart beats on
            if one not in self.watched or not one.table.held():
                return True  # nothing was to be extended; what a worker may not do it says itself
            self._link.say_refused(error)
            return False
        return True

    async def _beat(self, one: Watched) -> None:
        lease_seconds, sent_at = one.table.lease_seconds, monotonic()
        if not lease_seconds or _is_stopped(one.pid):
            return
        slots = [slot for slot in one.table.held() if not _has_overrun(slot)]
        # Of a run that this process has claimed again while an older attempt goes on, only the newest is ours.
        newest = dict(sorted((slot.run_id, slot.fencing_token) for slot in slots))
        held = list(newest.items())
        # Also when nothing is held, once for all: once something is, the session is there, though the server may take
        # no new ones.
        if not held and self._has_beaten:
            return
        if held:
            failpoints.hit("beating")
        states = await self._link.ask(heartbeat_runs(one.worker_id, held, seconds=lease_seconds))
        self._has_beaten = True
        if self._tallies is not None:
            self._tallies.beaten()
        failpoints.hit("beaten")
        if one not in self.watched:
            return  # it has ended meanwhile, and its table is closed
        for slot in slots:
            is_newest = newest[slot.run_id] == slot.fencing_token
            state = states.get(slot.run_id, "lost") if is_newest else "lost"
            if state == "leased":
                one.table.extend(slot, sent_at + lease_seconds)
            elif state == "locked":
                self._has_locked = True
            else:
                one.table.write_verdict(slot, Verdict.CANCELLED if state == "cancelled" else Verdict.LOST)


def _has_overrun(slot: HeldSlot) -> bool:
    # A run that overran its time-out in a blocked process is not kept alive.
    return bool(slot.timeout_at) and monotonic() > slot.timeout_at


def _is_stopped(pid: int) -> bool:
    """Return whether a process is stopped (SIGSTOP): it works on nothing, so its leases shall lapse."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (FileNotFoundError, ProcessLookupError):
        return _ps_says_stopped(pid)  # gone, or a system without /proc


def _ps_says_stopped(pid: int) -> bool:
    command = ["ps", "-o", "state=", "-p", str(pid)]
    with suppress(OSError, subprocess.SubprocessError):
        state = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
        return state.stdout.strip().startswith("T")
    return False


class HeartProcess:
    """The heart beside a worker in a user's own program; ``tend`` starts it again should it die.

    ``tally`` is where the worker counts; its metrics are served there, where no handler can hold them up, on the
    socket ``listening``.  Both are closed with the heart.
    """

    def __init__(
        self,
        database: Database,
        worker_id: str,
        pid: int,
        table: SlotTable,
        *,
        tally: Tally | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        self._order = {"database": database_order(database), "worker_id": worker_id, "pid": pid}
        self._table = table
        # A tally of its own too, which outlives it: what the metrics count shall not shrink.
        self._metrics = (tally, Tally.create(), listening) if tally and listening else ()
        self._fds = [one.fd if isinstance(one, Tally) else one.fileno() for one in self._metrics]
        self._order["metrics_fds"] = self._fds
        self._dependent: Dependent | None = None
        self._is_failing = False

    def tend(self) -> None:
        """Start the process if it does not run."""
        if self._dependent is not None:
            if self._dependent.process.poll() is None:
                return
            self._dependent.close()
            self._dependent = None  # also if another cannot be started now
            logger.warning("the heartbeat process died; starting it again")
        try:
            self._dependent = Dependent("heart", lambda _: self._order, [self._table.fd], named_fds=self._fds)
            self._is_failing = False
        except OSError as error:  # no process or descriptor left
            if not self._is_failing:
                logger.error("the heartbeat process cannot be started; trying again: %s", error)
            self._is_failing = True

    def close(self) -> None:
        """End the process: nothing is held any more."""
        if self._dependent is not None:
            self._dependent.say(BYE)
            self._dependent.close()
            with suppress(subprocess.TimeoutExpired):
                self._dependent.process.wait(5)
            if self._dependent.process.poll() is None:
                self._dependent.process.kill()
                self._dependent.process.wait(5)
        for one in self._metrics:
            one.close()


async def beat_beside(lifeline: int, table_fd: int) -> None:
    """Be the heart of the program at the other end of the lifeline, until it is gone."""
    order, table = read_order(lifeline), SlotTable(table_fd)
    tallies = None
    if order["metrics_fds"]:
        try:
            tallies = _serve_metrics(order["metrics_fds"], table)
        except Exception as error:  # noqa: BLE001 - leases matter more than metrics
            logger.error("metrics cannot be served: %s", error)
    heart = Heart(Database(**order["database"]), is_beside=True, tallies=tallies)
    heart.watched.append(Watched(order["worker_id"], order["pid"], table))
    beating = asyncio.create_task(heart.run())
    said_bye = await watch_lifeline(lifeline)
    beating.cancel()
    with suppress(asyncio.CancelledError):
        await beating
    if not said_bye:
        await heart.expire(heart.watched[0])
    await heart.close()


def _serve_metrics(fds: list[int], table: SlotTable) -> Tallies:
    from simpleworkflow.metrics.serving import MetricsServer

    tally, own, listening = fds
    tallies = Tallies(Tally(own))
    tallies.add(Tally(tally), table.held_count)
    MetricsServer(socket.socket(fileno=listening), tallies)
    return tallies
