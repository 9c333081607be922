"""One attempt, from the claim to its end, as the engine and the handler's run object see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from simpleworkflow.statements import Claimed, heartbeat_runs, record_progress
from simpleworkflow.worker.finishing import LOCKED_SECONDS
from simpleworkflow.worker.handlers import Handler
from simpleworkflow.worker.slots import Verdict

if TYPE_CHECKING:
    from simpleworkflow.worker.engine import Engine

__all__ = ["Execution", "within_timeout"]

# A handler that cannot be cancelled (a blocked loop) has this long after its time-out before the supervisor
# ends the process.
OVERRUN_SECONDS = 5.0


class Execution:
    """One attempt in this process: the claimed run, its slot, and what became of it meanwhile.

    It is also the link that its handler's run object holds.
    """

    __slots__ = (
        "claimed",
        "engine",
        "found",
        "handler",
        "has_begun",
        "is_over",
        "is_told",
        "sequence",
        "slot",
        "task",
    )

    def __init__(self, engine: Engine, claimed: Claimed, handler: Handler, slot: int, sequence: int) -> None:
        self.engine = engine
        self.claimed = claimed
        self.handler = handler
        self.slot = slot
        self.sequence = sequence
        self.found: Verdict | None = None
        self.is_told = False
        self.has_begun = False
        self.is_over = False
        self.task: asyncio.Task[None] | None = None

    def verdict(self) -> Verdict | None:
        """Return what became of the run: by the wake-up, by the supervisor, or because the attempt is over."""
        if self.found is None:
            self.found = Verdict.LOST if self.is_over else self.engine.table.verdict(self.slot, self.sequence)
        return self.found

    async def heartbeat(self, seconds: float) -> str:
        """Extend the lease; return leased, cancelled or lost."""
        if self.is_over:
            return "lost"
        held = [(self.claimed.id, self.claimed.fencing_token)]
        statement = heartbeat_runs(self.engine.worker_id, held, seconds=seconds, is_explicit=True)
        # An outage is no fault of the handler's, nor is a transaction that holds the row locked: it is answered when
        # that is over, or told to stop before.
        while True:
            sent_at = monotonic()
            state = (await self.engine.side.ask_until_answered(statement)).get(self.claimed.id, "lost")
            if state != "locked":
                break
            if verdict := self.verdict():
                return "cancelled" if verdict is Verdict.CANCELLED else "lost"
            await asyncio.sleep(LOCKED_SECONDS)
        if state != "leased":
            self.engine.tell(self, Verdict.CANCELLED if state == "cancelled" else Verdict.LOST)
        elif not self.is_over:
            self.engine.table.lengthen(self.slot, sent_at + seconds)
        return state

    async def record_progress(self, progress_json: str) -> bool:
        """Leave a progress event; return whether the run is still held."""
        claimed = self.claimed
        return not self.is_over and await self.engine.side.ask_until_answered(
            record_progress(self.engine.worker_id, claimed.id, claimed.fencing_token, progress_json)
        )

    def begin(self) -> float | None:
        """Let the time-out run from now; return its seconds.  Called when the handler really starts."""
        self.has_begun = True
        seconds = self.handler.options.timeout_seconds
        if seconds is not None and not self.is_over:
            self.engine.table.set_timeout(self.slot, monotonic() + seconds + OVERRUN_SECONDS)
        return seconds


def within_timeout(executions: Sequence[Execution], awaitable: Any) -> Any:
    """Let the handler's time-out run from now; return what to await for what ``awaitable``, its call, returns.

    Awaiting raises TimeoutError, if it took longer than the time-out and was cancelled.
    """
    seconds = None
    for execution in executions:
        seconds = execution.begin()
    return awaitable if seconds is None else _within(seconds, awaitable)


async def _within(seconds: float, awaitable: Any) -> Any:
    try:
        async with asyncio.timeout(seconds) as scope:
            return await awaitable
    except TimeoutError:
        if scope.expired():
            raise TimeoutError(f"the handler ran longer than its time-out of {seconds:g} s") from None
        raise
