"""What a handler is given: its run, and what it may ask and say about it."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from simpleworkflow.codec import bound_text
from simpleworkflow.errors import LeaseLost
from simpleworkflow.model import LEASE_SECONDS_MAX, PROGRESS_CHARACTERS_MAX
from simpleworkflow.statements import Claimed
from simpleworkflow.worker.slots import Verdict

__all__ = ["AsyncWorkflowRun", "RunLink", "WorkflowRun"]


class RunLink(Protocol):
    """How a run reaches the worker that holds it, from wherever its handler executes."""

    @abstractmethod
    def verdict(self) -> Verdict | None:
        """Return what became of the run, without asking the database."""

    @abstractmethod
    def heartbeat(self, seconds: float) -> Any:
        """Extend the lease; the answer is the run's state: leased, cancelled or lost."""

    @abstractmethod
    def record_progress(self, progress_json: str) -> Any:
        """Leave a progress event; the answer is whether the run is still held."""


class _RunValues:
    """The run's own values, which need no database: ``payload`` is decoded JSON."""

    __slots__ = ("_claimed", "_link", "payload")

    def __init__(self, claimed: Claimed, payload: Any, link: RunLink) -> None:
        self._claimed = claimed
        self._link = link
        self.payload: Any = payload

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._claimed.id} {self.type} attempt {self.attempt}>"

    @property
    def id(self) -> UUID:
        """The run's id, the same in every attempt: a good key for other systems."""
        return UUID(self._claimed.id)

    @property
    def type(self) -> str:
        """The run's type."""
        return self._claimed.type

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._claimed.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the run has."""
        return self._claimed.max_attempts

    @property
    def fencing_token(self) -> int:
        """Grows at every claim: another system that remembers the highest can refuse a zombie's writes."""
        return self._claimed.fencing_token

    @property
    def created_at(self) -> datetime:
        """When the run was recorded, by the database's clock, in UTC."""
        return datetime.fromisoformat(self._claimed.created_at).astimezone(UTC)

    def is_cancelled(self) -> bool:
        """Return whether the run was cancelled or lost: stop working then.  A memory read."""
        return self._link.verdict() is not None

    def _is_wanted(self, state: str) -> bool:
        if state == "lost":
            raise LeaseLost(self._claimed.id)
        return state == "leased"

    def _check_held(self, is_held: bool) -> None:
        if not is_held and self._link.verdict() is not Verdict.CANCELLED:
            raise LeaseLost(self._claimed.id)


class WorkflowRun(_RunValues):
    """A run as a sync handler or executor sees it."""

    __slots__ = ()

    def heartbeat(self, seconds: float) -> bool:
        """Extend the lease to at least ``seconds`` from now; return False if the run was cancelled.

        Leases are extended automatically; an explicit one leaves a ``heartbeat`` event.

        Raises:
            LeaseLost: another worker holds the run, or may hold it soon.
        """
        return self._is_wanted(self._link.heartbeat(_checked_seconds(seconds)))

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Leave a ``progress`` event that says how far the attempt is.

        Raises:
            LeaseLost: another worker holds the run.
        """
        self._check_held(self._link.record_progress(_progress_json(percent, message)))


class AsyncWorkflowRun(_RunValues):
    """A run as an async handler sees it: the same names, to be awaited."""

    __slots__ = ()

    async def heartbeat(self, seconds: float) -> bool:
        """Extend the lease to at least ``seconds`` from now; return False if the run was cancelled.

        Raises:
            LeaseLost: another worker holds the run, or may hold it soon.
        """
        answer: Coroutine[Any, Any, str] = self._link.heartbeat(_checked_seconds(seconds))
        return self._is_wanted(await answer)

    async def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Leave a ``progress`` event that says how far the attempt is.

        Raises:
            LeaseLost: another worker holds the run.
        """
        answer: Coroutine[Any, Any, bool] = self._link.record_progress(_progress_json(percent, message))
        self._check_held(await answer)


def _checked_seconds(seconds: float) -> float:
    if not 0 < seconds <= LEASE_SECONDS_MAX:
        raise ValueError(f"expected seconds above 0 and at most a year, got {seconds!r}")
    return float(seconds)


def _progress_json(percent: float | None, message: str | None) -> str:
    if percent is not None and not 0 <= percent <= 100:
        raise ValueError(f"expected a percent from 0 to 100, got {percent!r}")
    said = {
        "percent": percent if percent is None or type(percent) is int else float(percent),
        "message": None if message is None else bound_text(str(message)[:PROGRESS_CHARACTERS_MAX]),
    }
    return json.dumps({name: value for name, value in said.items() if value is not None})
