"""One worker process at work: claim, execute, finish, in one asyncio loop.

    exchanger ──claimed──▶ queue ──free place──▶ execution ──finished──▶ exchanger

Two exchangers take turns, so that handlers run while the other's batch is at the server.  Each exchange
finishes what has ended and claims what there is room for, in one round trip and one commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

import psycopg

from simpleworkflow.codec import decode
from simpleworkflow.errors import DatabaseUnavailable, LeaseLost, RunCancelled, WorkflowError
from simpleworkflow.outcome import Cancelled as CancelledOutcome
from simpleworkflow.outcome import Failed, Lost, Outcome, Retried, Succeeded, decide_failure, decide_result
from simpleworkflow.statements import Claimed, Exchanged, Finished, exchange, release_runs
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.calling import Callers
from simpleworkflow.worker.execution import Execution
from simpleworkflow.worker.finishing import finish_singly
from simpleworkflow.worker.handlers import Handlers
from simpleworkflow.worker.link import Link
from simpleworkflow.worker.options import WorkerOptions
from simpleworkflow.worker.pacing import Pace
from simpleworkflow.worker.room import BATCH_MAX, Room
from simpleworkflow.worker.slots import SlotTable, Verdict

__all__ = ["Engine"]

logger = logging.getLogger("simpleworkflow.worker")

# An ended attempt waits this long at most for others to be finished in the same exchange.
FINISH_DELAY_SECONDS = 0.005
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
    ) -> None:
        self.worker_id = worker_id
        self.table = table
        self.side = side
        self.set_hungry: Callable[[bool], None] = lambda _: None  # where there is no notifier
        self._handlers = handlers
        self._patterns = list(patterns)
        self._options = options
        self._links = links
        self._callers = callers
        self._free_slots = list(reversed(range(table.capacity)))
        self._queue: deque[Execution] = deque()
        self._executing: dict[int, Execution] = {}
        self._held: dict[int, Execution] = {}
        self._by_id: dict[str, Execution] = {}
        self._ended: list[Finished] = []
        self._ended_at = 0.0
        self._suspect: Execution | None = None
        self._room = Room(options.concurrency, table.capacity)
        self._pace = Pace(options.poll_seconds)
        self._is_stopping = False
        self._verdicts_seen = 0
        self._started_at = 0.0
        self._returning: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()

    # ── living and stopping ────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Work until ``stop`` was called and nothing is held any more."""
        async with asyncio.TaskGroup() as tasks:
            # In the group: without it nothing would fence the worker off, so its end is the worker's.
            watching = tasks.create_task(self._watch())
            await asyncio.wait([tasks.create_task(self._exchange_batches(link)) for link in self._links])
            watching.cancel()

    def stop(self) -> None:
        """Claim nothing more; what is held goes on."""
        self._is_stopping = True
        self.set_hungry(False)
        self._changed.set()

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
        self._changed.set()
        if held:
            with suppress(WorkflowError, psycopg.Error):
                await self.side.ask_until_answered(release_runs(self.worker_id, held))

    def _waiting(self) -> list[Execution]:
        return [one for one in self._queue if not one.is_over]

    def wake(self) -> None:
        """Look for runs now: something may be due."""
        self._pace.wake()
        self._changed.set()

    def find(self, run_id: str, fencing_token: int) -> Execution | None:
        """Return this attempt, if it is here."""
        execution = self._by_id.get(run_id)
        return execution if execution and execution.claimed.fencing_token == fencing_token else None

    # ── claiming and finishing ─────────────────────────────────────────────────────────────────────

    async def _exchange_batches(self, link: Link) -> None:
        while not (self._is_stopping and not self._held and not self._ended):
            limit = self._claim_limit()
            if not self._is_batch_due(limit):
                await self._wait(limit)
                continue
            batch, self._ended = self._ended[:BATCH_MAX], self._ended[BATCH_MAX:]
            held = len(self._held) + self._room.claiming
            self._room.claiming += limit
            sent_at, wakes = monotonic(), self._pace.wakes
            try:
                answer = await self._exchange(link, batch, limit, held)
            finally:
                self._room.claiming -= (
                    limit  # before the pause: the other exchanger may have a link that works
                )
            if answer is None:
                self._pace.wake()  # nobody has told what is due
                await link.pause()
                continue
            failpoints.hit("finished", len(batch))
            failpoints.hit("claimed", len(answer.claimed))
            for claimed in answer.claimed:
                self._accept(claimed, sent_at + self._options.lease_seconds)
            if limit:
                self._plan_next_claim(answer, limit, held, wakes)
            elif any(one.status == "pending" for one in batch):
                self._pace.wake()  # nobody has told yet when these retries are due
            if answer.refused:
                logger.info("results refused, of runs cancelled or lost: %d", len(answer.refused))
            if self._is_stopping and answer.claimed:  # asked for before the stop
                await self.release(self._waiting())
            self._start_queued()
            self._changed.set()
        self._changed.set()

    async def _exchange(self, link: Link, batch: list[Finished], limit: int, held: int) -> Exchanged | None:
        """Return what the exchange brought; None: it failed, and ``link`` wants a pause."""
        statement = exchange(
            self.worker_id,
            sorted(batch),  # by id: everybody who waits for several runs takes them in this order
            self._patterns,
            limit=limit,
            lease_seconds=self._options.lease_seconds,
            held=held,
        )
        failpoints.hit("finishing", len(batch))
        try:
            return await link.ask(statement)
        except DatabaseUnavailable:
            # What was claimed and lost on the way comes back by expiry.  Finishing twice does no harm: the
            # second time is refused.
            self._ended = batch + self._ended
        except Exception as error:  # noqa: BLE001 - whatever the database says, the worker lives
            link.say_refused(error)
            await finish_singly(link, self.worker_id, batch)
        return None

    def _plan_next_claim(self, answer: Exchanged, limit: int, held: int, wakes: int) -> None:
        now = monotonic()
        self._room.is_to_be_empty = answer.is_suspect_waiting or (held > 0 and self._room.is_to_be_empty)
        if answer.is_suspect_waiting:
            return
        if answer.claimed:
            has_room = len(self._held) < self._room.capacity()
            if self._pace.took_some(now, is_full=len(answer.claimed) == limit, has_room=has_room):
                self.set_hungry(False)
        else:
            self._pace.found_nothing(now, due_in_seconds=answer.due_in_seconds, wakes=wakes)
            self.set_hungry(not self._is_stopping)

    def _claim_limit(self) -> int:
        is_claiming = self._room.claiming > 0
        if self._is_stopping or self._suspect or not self._pace.may_claim(is_claiming=is_claiming):
            return 0
        return self._room.limit(len(self._held), len(self._free_slots))

    def _is_batch_due(self, limit: int) -> bool:
        if self._ended:
            is_all = not self._held or len(self._ended) >= BATCH_MAX or self._is_stopping
            return is_all or monotonic() - self._ended_at >= FINISH_DELAY_SECONDS
        return limit > 0 and self._pace.seconds_left(monotonic()) <= 0

    async def _wait(self, limit: int) -> None:
        if not limit and not self._room.claiming:
            self.set_hungry(False)  # no room: whoever has some shall be woken instead of us
        waits = [1.0]
        if self._ended:
            waits.append(FINISH_DELAY_SECONDS - (monotonic() - self._ended_at))
        elif limit:
            waits.append(self._pace.seconds_left(monotonic()))
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(min(waits), 0.0)):
                await self._changed.wait()

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
                self._changed.set()
                return
        if not self._ended:
            self._ended_at = monotonic()
            self._changed.set()
        self._ended.append(ended)
        if not self._held or len(self._ended) == BATCH_MAX:
            self._changed.set()

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
