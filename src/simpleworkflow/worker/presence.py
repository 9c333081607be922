"""Presence: a worker tells that it is there, and its heart that it still is.

People look at it, and ``why`` answers from it; no run depends on it.  So whatever the database says to these
statements, they are forgotten: they delay no lease, and end no worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from time import monotonic

import psycopg

from simpleworkflow.database import first_line
from simpleworkflow.errors import DatabaseUnavailable, NotPermitted, WorkflowError
from simpleworkflow.maintenance import Asks
from simpleworkflow.statements import Introduction, beat_workers, end_workers, register_worker
from simpleworkflow.summaries import WorkerState

__all__ = ["BEAT_SECONDS", "LAST_WORD_SECONDS", "Presence", "RollCall"]

logger = logging.getLogger("simpleworkflow.worker")

# Who is not seen for three of these is called lost.  Ten workers of two supervisors: 0.2 statements a second.
BEAT_SECONDS = 10.0
# Should its row be gone, a worker is there again within this.
REGISTER_SECONDS = 3600.0
REGISTER_AGAIN_SECONDS = 30.0
# While a worker stops, nobody waits longer to hear that.
LAST_WORD_SECONDS = 0.5


class Presence:
    """The service that enters a worker, and says when it stops; its heart says that it is alive."""

    name = "presence"
    slack_seconds = 0.0

    def __init__(self, link: Asks, worker_id: str, *, patterns: Sequence[str], concurrency: int) -> None:
        self._link = link
        self._introduction = Introduction(
            worker_id, patterns, concurrency, socket.gethostname(), os.getpid(), version("simpleworkflow")
        )
        self._has_failed = False

    async def run_once(self) -> float:
        """Enter the worker; return after how many seconds to do it again."""
        try:
            await self._link.ask(register_worker(self._introduction, beat_seconds=BEAT_SECONDS))
        except DatabaseUnavailable:
            return 1.0  # its link has said so
        except (WorkflowError, psycopg.Error) as error:
            if not self._has_failed:
                logger.warning(
                    "the worker could not be entered, but works; trying again: %s", first_line(error)
                )
            self._has_failed = True
            return REGISTER_SECONDS if isinstance(error, NotPermitted) else REGISTER_AGAIN_SECONDS
        self._has_failed = False
        return REGISTER_SECONDS

    async def say(self, state: WorkerState) -> None:
        """Say that the worker is stopping, or has stopped, unless that takes long."""
        with suppress(WorkflowError, psycopg.Error, TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._link.ask(end_workers([self._introduction.worker], state))


class RollCall:
    """Says every ``BEAT_SECONDS`` of all workers of one heart, in one statement, that they are alive."""

    def __init__(self) -> None:
        self._called_at = -BEAT_SECONDS

    def is_due(self) -> bool:
        """Return whether it is time; a little early, where the heart is awake anyway."""
        return monotonic() - self._called_at >= 0.9 * BEAT_SECONDS

    async def call(self, link: Asks, held: Mapping[str, int]) -> None:
        """Say that these are alive, and how many runs each holds; what is wrong with it a worker's own entry tells."""
        if not held:
            return
        self._called_at = monotonic()
        # Whatever the database says, leases are extended; a worker that has not begun says itself what is wrong.
        with suppress(WorkflowError, psycopg.Error):
            await link.ask(beat_workers(held))
