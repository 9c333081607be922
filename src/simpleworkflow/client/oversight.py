"""The part of the clients for who watches over runs: counts, types, pauses."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar
from uuid import UUID

from simpleworkflow.client import overseeing
from simpleworkflow.client.verbs import Plan
from simpleworkflow.model import Pause, Stats, TypeSummary
from simpleworkflow.summaries import Why, WorkerSummary

__all__ = ["AsyncOversight", "Oversight"]

T = TypeVar("T")


class Oversight:
    """What ``Client`` offers to who watches over runs and workers."""

    @abstractmethod
    def _follow(self, plan: Plan[T], conn: Any = None) -> T: ...

    def stats(self, window_seconds: int = 300) -> Stats:
        """Return how many runs there are of each status, what is due, and what happened in the last seconds.

        The counts are exact, whoever changed runs and however many there are, and cost the same at ten million: what
        changes runs leaves what it changed by.  ``window_seconds``: 10 to 2592000, which is 30 days.

        Raises:
            InvalidInput: the window is no such number.
        """
        return self._follow(overseeing.stats(window_seconds))

    def types(self, window_seconds: int = 300) -> list[TypeSummary]:
        """Return a summary of each type that has runs, had some in the window, or is handled by its name, sorted.

        Raises:
            InvalidInput: the window is no number from 10 to 2592000.
        """
        return self._follow(overseeing.types(window_seconds))

    def pause(self, pattern: str, reason: str | None = None) -> bool:
        """Let no run that ``pattern`` covers be claimed from now on; return whether that changed anything.

        What is leased goes on.  Runs may be submitted, and wait.  Who paused it, when and why is kept.

        Raises:
            InvalidInput: ``pattern`` is neither a type nor a prefix that ends in ``%``.
        """
        return self._follow(overseeing.pause(pattern, reason))

    def resume(self, pattern: str) -> bool:
        """Let what the paused ``pattern`` covers be claimed again, at once; return whether that changed anything.

        It is the very pattern that was paused; what another paused pattern covers stays paused.

        Raises:
            InvalidInput: ``pattern`` is neither a type nor a prefix that ends in ``%``.
        """
        return self._follow(overseeing.resume(pattern))

    def pauses(self) -> list[Pause]:
        """Return the patterns that are paused now."""
        return self._follow(overseeing.pauses())

    def recount(self) -> int:
        """Count all runs anew, and put right what ``stats`` and ``types`` say; return how many counts were wrong.

        Only what a superuser did with the triggers switched off makes that necessary.  It reads the table whole, and
        holds up nobody.
        """
        return self._follow(overseeing.recount())

    def why(self, run_id: UUID | str) -> Why:
        """Return the one reason that the run is not running now, in words, with what to do about it.

        It is cheap, also where a million runs are pending.

        Raises:
            RunNotFound: there is no such run.
        """
        return self._follow(overseeing.why(run_id))

    def workers(self, *, limit: int = 500, holds: int = 10) -> list[WorkerSummary]:
        """Return up to ``limit`` workers, those that run first, then the newest; those that ended a day ago are gone.

        Each comes with up to ``holds`` of the runs that it holds (at most 100).

        Raises:
            InvalidInput: a number is out of its range.
        """
        return self._follow(overseeing.workers(limit, holds))


class AsyncOversight:
    """What ``AsyncClient`` offers to who watches over runs and workers."""

    @abstractmethod
    async def _follow(self, plan: Plan[T], conn: Any = None) -> T: ...

    async def stats(self, window_seconds: int = 300) -> Stats:
        """Return how many runs there are of each status, what is due, and what happened in the last seconds."""
        return await self._follow(overseeing.stats(window_seconds))

    async def types(self, window_seconds: int = 300) -> list[TypeSummary]:
        """Return a summary of each type that has runs, had some in the window, or is handled by its name, sorted."""
        return await self._follow(overseeing.types(window_seconds))

    async def pause(self, pattern: str, reason: str | None = None) -> bool:
        """Let no run that ``pattern`` covers be claimed from now on; return whether that changed anything."""
        return await self._follow(overseeing.pause(pattern, reason))

    async def resume(self, pattern: str) -> bool:
        """Let what the paused ``pattern`` covers be claimed again, at once; return whether that changed anything."""
        return await self._follow(overseeing.resume(pattern))

    async def pauses(self) -> list[Pause]:
        """Return the patterns that are paused now."""
        return await self._follow(overseeing.pauses())

    async def recount(self) -> int:
        """Count all runs anew, and put right what ``stats`` says; return how many counts were wrong."""
        return await self._follow(overseeing.recount())

    async def why(self, run_id: UUID | str) -> Why:
        """Return the one reason that the run is not running now; see ``Client.why``."""
        return await self._follow(overseeing.why(run_id))

    async def workers(self, *, limit: int = 500, holds: int = 10) -> list[WorkerSummary]:
        """Return the workers, those that run first, then the newest; see ``Client.workers``."""
        return await self._follow(overseeing.workers(limit, holds))
