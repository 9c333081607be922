"""One worker process at work: claim, execute, finish, in one asyncio loop.

exchanger ──claimed──▶ queue ──free place──▶ execution ──finished──▶ exchanger
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import psycopg

from simpleworkflow.codec import decode
from simpleworkflow.errors import LeaseLost, RunCancelled, WorkflowError
from simpleworkflow.maintenance import Board
from simpleworkflow.outcome import Cancelled as CancelledOutcome
from simpleworkflow.outcome import Failed, Lost, Outcome, Retried, Succeeded, decide_failure, decide_result
from simpleworkflow.statements import Claimed, Finished, release_runs
from simpleworkflow.worker.calling import Callers
from simpleworkflow.worker.exchanging import Exchanger
from simpleworkflow.worker.execution import Execution
from simpleworkflow.worker.handlers import Handlers
from simpleworkflow.worker.link import Link
from simpleworkflow.worker.options import WorkerOptions
from simpleworkflow.worker.room import Room
from simpleworkflow.worker.slots import SlotTable, Verdict

__all__ = ["Engine"]

logger = logging.getLogger("simpleworkflow.worker")

TICK_SECONDS = 0.1
# What was claimed ahead and still waits when nothing has started for so long is given back: others may be idle.
WAIT_SECONDS_MAX = 0.5


class Engine:
    """Claims, executes and finishes runs until told to stop.  ``side`` is the link for everything else."""

    def __init__(
        self,
        *,
        worker_id: str,
        handlers: Handlers,
        patterns: Sequence[str],
        options: WorkerOptions,
        table: SlotTable,
        links: Sequence[Link],
        side: Link,
        callers: Callers,
        board: Board | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.table = table
        self.side = side
        self._handlers = handlers
        self._options = options
        self._callers = callers
        self._free_slots = list(reversed(range(table.capacity)))
        self._queue: deque[Execution] = deque()
        self._executing: dict[int, Execution] = {}
        self._held: dict[int, Execution] = {}
        self._by_id: dict[str, Execution] = {}
        self._suspect: Execution | None = None
        self._room = Room(options.concurrency, table.capacity)
        self.exchanger = Exchanger(
            self,
            worker_id=worker_id,
            patterns=patterns,
            options=options,
            links=links,
            room=self._room,
            board=board,
        )
        self._is_stopping = False
        self._verdicts_seen = 0
        self._started_at = 0.0
        self._returning: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._is_holding = asyncio.Event()

    # ── living and stopping ────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Work until ``stop`` was called and nothing is held any more."""
        async with asyncio.TaskGroup() as tasks:
            # In the group: without it nothing would fence the worker off, so its end is the worker's.
            watching = tasks.create_task(self._watch())
            await self.exchanger.run()
            watching.cancel()

    def stop(self) -> None:
        """Claim nothing more; what is held goes on."""
        self._is_stopping = True
        self.exchanger.stop()

    async def wait_until_idle(self) -> None:
        """Return when no handler executes; call it after ``stop``.  What waits for a place is given back now."""
        await self.release(self._waiting())
        while self._executing:
            self._idle.clear()
            await self._idle.wait()

    async def release_all(self) -> None:
        """Give back everything that still executes; cancel the handlers that can be."""
        left = list(self._held.values())
        for execution in left:
            self._cancel_handler(execution)
        await self.release(left)

    async def release(self, executions: Sequence[Execution]) -> None:
        """Give runs back untried; their handlers' results are refused from now on."""
        held = [(one.claimed.id, one.claimed.fencing_token) for one in executions]
        for execution in executions:
            self._leave(execution)
        self.exchanger.note_change()
        if held:
            with suppress(WorkflowError, psycopg.Error):
                await self.side.ask_until_answered(release_runs(self.worker_id, held))

    def _waiting(self) -> list[Execution]:
        return [one for one in self._queue if not one.is_over]

    def find(self, run_id: str, fencing_token: int) -> Execution | None:
        """Return this attempt, if it is here."""
        execution = self._by_id.get(run_id)
        return execution if execution and execution.claimed.fencing_token == fencing_token else None

    # ── what the exchanges bring ───────────────────────────────────────────────────────────────────

    def held_count(self) -> int:
        """Return how many runs are held."""
        return len(self._held)

    def free_count(self) -> int:
        """Return how many more can be held."""
        return len(self._free_slots)

    def may_claim(self) -> bool:
        """Return whether to claim at all: not beside a suspect."""
        return self._suspect is None

    def accept(self, claimed: Sequence[Claimed], lease_until: float) -> None:
        """Hold these runs; the lease is theirs until then, by the monotonic clock."""
        for one in claimed:
            self._accept(one, lease_until)
        if claimed:
            self._is_holding.set()

    async def begin(self, *, is_stopping: bool) -> None:
        """Execute what is held; or give it back, where it was claimed before the stop."""
        if is_stopping:
            await self.release(self._waiting())
        self._start_queued()

    # ── executing ──────────────────────────────────────────────────────────────────────────────────

    def _accept(self, claimed: Claimed, lease_until: float) -> None:
        handler = self._handlers.find(claimed.type)
        if handler is None:  # claimed by a pattern that covers more than the handlers do: cannot be
            logger.error("no handler for type %s", claimed.type)
            return
        slot = self._free_slots.pop()
        sequence = self.table.hold(slot, claimed.id, claimed.fencing_token, lease_until)
        execution = Execution(self, claimed, handler, slot, sequence)
        self._held[sequence] = execution
        self._by_id[claimed.id] = execution
        self._queue.append(execution)
        if claimed.is_suspect:
            self._suspect = execution

    def _start_queued(self) -> None:
        while self._queue and self._has_place() and not self._is_stopping:
            execution = self._queue.popleft()
            if execution.is_over:
                continue
            self._executing[execution.sequence] = execution
            execution.task = asyncio.create_task(self._execute(execution))
            self._started_at = monotonic()

    def _has_place(self) -> bool:
        # Nothing beside a suspect.
        return len(self._executing) < (1 if self._suspect else self._options.concurrency)

    async def _execute(self, execution: Execution) -> None:
        execution.is_started = True
        started = monotonic()
        try:
            outcome = await self._attempt(execution)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises, the worker lives
            outcome = self._judge(execution, error)
        if execution.found is Verdict.CANCELLED:
            outcome = CancelledOutcome()  # whatever it returned: the database would refuse it
        self._room.took(monotonic() - started)
        self._executing.pop(execution.sequence, None)
        if not execution.is_over:
            self._finish(execution, outcome)
        self._start_queued()
        if self._is_stopping and not self._executing:
            self._idle.set()

    async def _attempt(self, execution: Execution) -> Outcome:
        claimed, handler = execution.claimed, execution.handler
        if execution.verdict() is not None:
            raise RunCancelled(claimed.id) if execution.found is Verdict.CANCELLED else LeaseLost(claimed.id)
        payload = decode(claimed.payload)
        arguments = (handler.read_payload(payload),) if handler.takes_payload else ()
        return decide_result(await self._callers.call(execution, payload, arguments))

    def _judge(self, execution: Execution, error: BaseException) -> Outcome:
        verdict = execution.verdict()
        if verdict is Verdict.CANCELLED:
            return CancelledOutcome()
        if verdict is Verdict.LOST:
            return Lost()
        options = execution.handler.options
        attempt = execution.claimed.attempt
        outcome = decide_failure(error, attempt=attempt, retry=options.retry)
        if isinstance(outcome, Retried) and options.max_attempts and attempt >= options.max_attempts:
            return Failed(outcome.error)
        return outcome

    def _finish(self, execution: Execution, outcome: Outcome) -> None:
        claimed = execution.claimed
        self._leave(execution)
        match outcome:
            case Succeeded(result):
                ended = Finished(claimed.id, claimed.fencing_token, "succeeded", result)
            case Failed(error):
                ended = Finished(claimed.id, claimed.fencing_token, "failed", None, error)
            case Retried(error, delay):
                ended = Finished(claimed.id, claimed.fencing_token, "pending", None, error, delay)
            case _:
                # Cancelled or lost: the database knows already, and refuses anything that came from here.
                self.exchanger.note_change()
                return
        self.exchanger.finish(ended)

    def _leave(self, execution: Execution) -> None:
        execution.is_over = True
        if self._held.pop(execution.sequence, None) is not None:
            self.table.free(execution.slot)
            if execution is self._suspect:
                self._suspect = None
            self._free_slots.append(execution.slot)
            # Not by the id alone: a run that was lost may have been claimed again, by this very process.
            if self._by_id.get(execution.claimed.id) is execution:
                del self._by_id[execution.claimed.id]

    # ── what happens meanwhile ─────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        while True:
            if not self._held:  # nobody to tell anything: sleep until there is
                self.table.clear_timeouts()
                self._is_holding.clear()
                await self._is_holding.wait()
            await asyncio.sleep(TICK_SECONDS)
            if (count := self.table.verdict_count()) != self._verdicts_seen:
                self._verdicts_seen = count
                for execution in list(self._held.values()):
                    if verdict := self.table.verdict(execution.slot, execution.sequence):
                        self.tell(execution, verdict)
            self._fence()
            self._return_waiting()

    def _return_waiting(self) -> None:
        """Give back what was claimed ahead for runs that turned out to be long."""
        if not self._queue or monotonic() - self._started_at < WAIT_SECONDS_MAX:
            return
        waiting = self._waiting()
        self._queue.clear()
        self._room.claim_nothing_ahead()
        # Not awaited: who watches waits for no database.
        returning = asyncio.create_task(self.release(waiting))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)

    def _fence(self) -> None:
        """Give up runs whose lease may lapse before it is extended: the database cannot be reached."""
        limit = monotonic() + max(2 * TICK_SECONDS, min(1.0, self._options.lease_seconds / 10))
        lapsing = [
            one
            for one in self._held.values()
            if one.found is None and self.table.lease_until(one.slot) < limit
        ]
        for execution in lapsing:
            self.tell(execution, Verdict.LOST)
        if lapsing:
            logger.warning(
                "leases that could not be extended in time, whose handlers are told to stop: %d", len(lapsing)
            )

    def tell(self, execution: Execution, verdict: Verdict) -> None:
        """Tell an execution, once, what became of its run; an async handler is cancelled."""
        if execution.is_over:
            return
        execution.found = verdict
        if execution.is_told:  # a second cancellation would disturb the handler's cleaning up
            return
        execution.is_told = True
        if execution.task is None:
            self._leave(execution)
        else:
            self._cancel_handler(execution)

    def _cancel_handler(self, execution: Execution) -> None:
        # A task that was cancelled before its first step would never say that it ended; it asks by itself.  A
        # handler in a thread cannot be cancelled, but one that still waits for its thread shall not begin.
        can_be_cancelled = execution.handler.kind != "thread" or not execution.has_begun
        if execution.task is not None and execution.is_started and can_be_cancelled:
            execution.task.cancel()
