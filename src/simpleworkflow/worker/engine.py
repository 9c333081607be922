"""One worker process at work: claim, execute, finish, in one asyncio loop.

exchanger ──claimed──▶ queue ──free place──▶ execution ──finished──▶ exchanger
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from time import monotonic

import psycopg

from simpleworkflow.errors import WorkflowError
from simpleworkflow.maintenance import Board
from simpleworkflow.metrics import Tally
from simpleworkflow.outcome import Cancelled as CancelledOutcome
from simpleworkflow.outcome import Failed, Lost, Outcome, Released, Retried, Succeeded
from simpleworkflow.statements import Claimed, Finished
from simpleworkflow.worker.attempt import attempt, attempt_all
from simpleworkflow.worker.calling import Callers
from simpleworkflow.worker.exchanging import Exchanger
from simpleworkflow.worker.execution import Execution
from simpleworkflow.worker.finishing import give_back
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
# Handlers that never wait for anything let the loop do other things after so long.
TURN_SECONDS = 0.005


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
        tally: Tally | None = None,
        is_traced: bool = False,
    ) -> None:
        self.worker_id = worker_id
        self.table = table
        self.side = side
        self._handlers = handlers
        self._options = options
        self._callers = callers
        self._tally = tally
        self._free_slots = list(reversed(range(table.capacity)))
        self._queue: deque[Execution] = deque()
        self._executing: dict[int, Execution] = {}
        self._is_opening = self._is_pausing = self._is_to_look = False
        self._places: set[asyncio.Task[None]] = set()
        self._context = copy_context()
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
            tally=tally,
            is_traced=is_traced,
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
        for task in {execution.task for execution in left if self._can_be_cancelled(execution)}:
            if task is not None:
                task.cancel()
        await self.release(left)

    async def release(self, executions: Sequence[Execution]) -> None:
        """Give runs back untried; their handlers' results are refused from now on."""
        held = [(one.claimed.id, one.claimed.fencing_token) for one in executions]
        for execution in executions:
            self._leave(execution)
            if self._tally is not None:
                self._tally.count_released(execution.claimed.type)
        self.exchanger.note_change()
        if held:
            with suppress(WorkflowError, psycopg.Error):
                await give_back(self.side, self.worker_id, held, lease_seconds=self._options.lease_seconds)

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

    # A place is a task that executes what waits, one call of a handler after the other: a task for each would cost 3 of
    # 12 microseconds.  As soon as a handler waits for something, another place is opened for what waits in the queue.

    def _start_queued(self) -> None:
        """Open a place, if something waits that no open one is about to take."""
        is_anybody_there = self._is_opening or self._is_pausing
        if self._queue and self._free_places() > 0 and not is_anybody_there and not self._is_stopping:
            self._is_opening = True
            place = asyncio.create_task(self._serve(), context=self._context.copy())
            self._places.add(place)
            place.add_done_callback(self._places.discard)

    def _free_places(self) -> int:
        # Nothing beside a suspect.
        return (1 if self._suspect else self._options.concurrency) - len(self._executing)

    def _look_when_the_loop_turns(self) -> None:
        if not self._is_to_look:
            self._is_to_look = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._is_to_look = False
        self._start_queued()

    async def _serve(self) -> None:
        self._is_opening = False
        try:
            await self._execute_in_turn()
        finally:
            self._start_queued()
            if self._is_stopping and not self._executing:
                self._idle.set()

    async def _execute_in_turn(self) -> None:
        """Execute until nothing waits, or what was executed could reach into what the same task executes next.

        It could, if it was cancelled or failed, or has left something in the context of its task.
        """
        task, context, turn_began = asyncio.current_task(), copy_context(), monotonic()
        while not self._is_pausing and (executions := self._next_call()):
            for execution in executions:
                self._executing[execution.sequence] = execution
                execution.task = task
            self._look_when_the_loop_turns()
            is_clean = await self._execute(executions)
            if not is_clean or context != copy_context() or (task and task.cancelling()):
                return
            if monotonic() - turn_began > TURN_SECONDS:
                await self._pause()
                turn_began = monotonic()

    async def _pause(self) -> None:
        self._is_pausing = True
        try:
            await asyncio.sleep(0)
        finally:
            self._is_pausing = False

    def _next_call(self) -> list[Execution]:
        """Return what one call of a handler executes: one run, or those of a batch; empty: nothing may begin."""
        executions: list[Execution] = []
        wanted = 1 if self._free_places() > 0 and not self._is_stopping else 0
        while self._queue and len(executions) < wanted:
            execution = self._queue[0]
            if executions and execution.handler is not executions[0].handler:
                break
            self._queue.popleft()
            if execution.is_over:
                continue
            executions.append(execution)
            if batch_max := execution.handler.options.batch_max:
                wanted = min(batch_max, self._free_places())
        return executions

    async def _execute(self, executions: list[Execution]) -> bool:
        """Return whether nothing of it can reach into what its task executes next."""
        self._started_at = started = monotonic()
        is_single = len(executions) == 1 and not executions[0].handler.options.batch_max
        if is_single and not self._callers.around:
            outcomes = [await attempt(self._callers, executions[0])]
        else:
            outcomes = await attempt_all(self._callers, executions)
        seconds = monotonic() - started
        self._room.took(seconds)
        is_clean = True
        for execution, outcome in zip(executions, outcomes, strict=True):
            is_clean = is_clean and type(outcome) is Succeeded and not execution.is_told
            self._executing.pop(execution.sequence, None)
            if not execution.is_over:
                # Whatever a cancelled one returned: the database would refuse it.
                is_cancelled = execution.found is Verdict.CANCELLED
                self._finish(execution, CancelledOutcome() if is_cancelled else outcome, seconds)
        return is_clean

    def _finish(self, execution: Execution, outcome: Outcome, seconds: float) -> None:
        claimed = execution.claimed
        id_, token, type_ = claimed.id, claimed.fencing_token, claimed.type
        self._leave(execution)
        match outcome:
            case Succeeded():
                ended = Finished(id_, token, "succeeded", outcome.result_json, None, None, type_, seconds)
            case Failed(error):
                ended = Finished(id_, token, "failed", None, error, None, type_, seconds)
            case Retried(error, delay):
                is_last = claimed.attempt >= claimed.max_attempts
                ended = Finished(id_, token, "pending", None, error, delay, type_, seconds, is_last)
            case Released():
                self._release_soon([execution])
                return
            case _:
                # Cancelled or lost: the database knows already, and refuses anything that came from here.
                self._count_over(execution, outcome)
                self.exchanger.note_change()
                return
        self.exchanger.finish(ended)

    def _count_over(self, execution: Execution, outcome: Outcome) -> None:
        if self._tally is not None:
            is_cancelled = isinstance(outcome, CancelledOutcome)
            count = self._tally.count_cancelled if is_cancelled else self._tally.count_lost
            count(execution.claimed.type)

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
        if not self._queue or self._free_places() > 0 or monotonic() - self._started_at < WAIT_SECONDS_MAX:
            return  # where there is a place, it is the loop that they wait for: it was blocked, and goes on
        waiting = self._waiting()
        self._queue.clear()
        self._room.claim_nothing_ahead()
        self._release_soon(waiting)

    def _release_soon(self, executions: Sequence[Execution]) -> None:
        # Not awaited: who watches or executes waits for no database.
        returning = asyncio.create_task(self.release(executions))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)

    def _fence(self) -> None:
        """Give up runs whose lease may lapse before it is extended: no database, or somebody holds the row."""
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
            self._count_over(execution, CancelledOutcome() if verdict is Verdict.CANCELLED else Lost())
            self.exchanger.note_change()
        elif self._can_be_cancelled(execution) and not self._is_wanted_in_batch(execution.task):
            execution.task.cancel()

    def _can_be_cancelled(self, execution: Execution) -> bool:
        # A handler in a thread cannot, but one that still waits for its thread shall not begin.
        return execution.handler.kind != "thread" or not execution.has_begun

    def _is_wanted_in_batch(self, task: asyncio.Task[None]) -> bool:
        return any(
            one.task is task and not one.is_told and not one.is_over for one in self._executing.values()
        )
