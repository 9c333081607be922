"""Claiming and finishing: the exchanges of one worker process with the database.

Each exchange finishes what has ended and claims what there is room for, in one round trip and one commit.  The links
take turns, so that handlers run while another batch is at the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from simpleworkflow.database import first_line
from simpleworkflow.errors import DatabaseUnavailable
from simpleworkflow.maintenance import RUNS, Board, Look
from simpleworkflow.metrics import Tally
from simpleworkflow.statements import Claimed, Exchanged, Finished, exchange, get_traceparents, heartbeat_runs
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.finishing import LOCKED_SECONDS, find_locked, finish_singly
from simpleworkflow.worker.lanes import Lanes, Where
from simpleworkflow.worker.link import Link
from simpleworkflow.worker.options import WorkerOptions
from simpleworkflow.worker.pacing import Pace
from simpleworkflow.worker.room import BATCH_MAX, Room

__all__ = ["Exchanger", "Holder"]

logger = logging.getLogger("simpleworkflow.worker")

# An ended attempt waits this long at most for others to be finished in the same exchange.
FINISH_DELAY_SECONDS = 0.005
# Where there is no room, whether there is some again is looked at least so often.
LOOK_SECONDS = 1.0


class Holder(Protocol):
    """Who holds the runs that the exchanges bring."""

    def held_count(self) -> int:
        """Return how many runs are held."""

    def free_count(self) -> int:
        """Return how many more can be held."""

    def may_claim(self) -> bool:
        """Return whether to claim at all."""

    def accept(self, claimed: Sequence[Claimed], lease_until: float) -> None:
        """Hold these runs; the lease is theirs until then, by the monotonic clock."""

    async def begin(self, *, is_stopping: bool) -> None:
        """Execute what is held; or give it back, where it was claimed before the stop."""


class Claim(NamedTuple):
    """What one exchange asks for: ``limit`` runs, by a worker that holds so many, sent then after so many wake-ups."""

    limit: int
    held: int
    where: Where
    sent_at: float
    wakes: int


class Exchanger:
    """Finishes what has ended and claims what there is room for, until it was stopped and nothing is held."""

    def __init__(
        self,
        holder: Holder,
        *,
        worker_id: str,
        patterns: Sequence[str],
        options: WorkerOptions,
        links: Sequence[Link],
        room: Room,
        board: Board | None = None,
        tally: Tally | None = None,
        is_traced: bool = False,
    ) -> None:
        self.set_hungry: Callable[[bool], None] = lambda _: None  # where there is no notifier
        self.on_awake: Callable[[], None] = lambda: None  # called when this process is awake
        self._holder = holder
        self._worker_id = worker_id
        self._patterns = list(patterns)
        self._board = board or Board()
        self._tally = tally
        self._is_traced = is_traced
        self._question = " ".join(patterns).encode()
        self._lease_seconds = options.lease_seconds
        self._links = links
        self._room = room
        self._pace = Pace(options.poll_seconds)
        self._lanes = Lanes()
        self._ended: list[Finished] = []
        self._ended_at = 0.0
        self._unanswered: list[Finished] = []
        self._sift_at = 0.0
        self._is_stopping = False
        self._changed = asyncio.Event()
        self._looking: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Exchange until ``stop`` was called and nothing is held any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for link in self._links:
                    tasks.create_task(self._exchange_batches(link))
        finally:
            self._look_no_more()

    def stop(self) -> None:
        """Claim nothing more."""
        self._is_stopping = True
        self.set_hungry(False)
        self._changed.set()

    def wake(self) -> None:
        """Look for runs now: something may be due."""
        self._pace.wake()
        self._lanes.wake()
        self._changed.set()

    def finish(self, ended: Finished) -> None:
        """Tell the database of the end of an attempt with the next exchange."""
        if not self._ended:
            self._ended_at = monotonic()
            self._changed.set()
        self._ended.append(ended)
        if len(self._ended) == BATCH_MAX or not self._holder.held_count():
            self._changed.set()

    def note_change(self) -> None:
        """Look again whether there is room: something is held no more."""
        self._changed.set()

    async def _exchange_batches(self, link: Link) -> None:
        while not self._is_done():
            if self._is_sifting_due():
                await self._sift(link)
                continue
            limit = self._claim_limit()
            if not self._is_batch_due(limit):
                await self._wait(limit)
                continue
            batch, self._ended = self._ended[:BATCH_MAX], self._ended[BATCH_MAX:]
            claim = self._claim(limit)
            self._room.claiming += limit
            lease_until = claim.sent_at + self._lease_seconds
            try:
                answer = await self._exchange(link, batch, claim)
                if answer and answer.claimed and monotonic() - claim.sent_at > self._lease_seconds / 3:
                    answer, lease_until = await self._extend(link, answer, lease_until)
            finally:
                # Before the pause: another link may work.
                self._room.claiming -= limit
            if answer is None:
                self._pace.wake()  # nobody has told what is due
                await link.pause()
                self._pace.wake()  # whatever others asked meanwhile: that this link is served again only it can tell
                continue
            await self._take(answer, batch, claim, lease_until)
            self._look_no_more()  # all that wait are woken, and say anew by when to look
            self._changed.set()
            self.on_awake()
        self._changed.set()

    async def _exchange(self, link: Link, batch: list[Finished], claim: Claim) -> Exchanged | None:
        """Return what the exchange brought; None: it failed, and ``link`` wants a pause."""
        statement = exchange(
            self._worker_id,
            sorted(batch),  # by id: everybody who waits for several runs takes them in this order
            self._patterns,
            limit=claim.limit,
            lease_seconds=self._lease_seconds,
            held=claim.held,
            lanes=claim.where.lanes,
            is_look=claim.where.is_look,
            tells_waits=self._tally is not None,
        )
        failpoints.hit("finishing", len(batch))
        try:
            answer = await link.ask(statement)
        except DatabaseUnavailable:
            # What was claimed and lost on the way comes back by expiry.
            self._unanswered += batch
            self._sift_at = 0.0
        except Exception as error:  # noqa: BLE001 - whatever the database says, the worker lives
            link.say_refused(error)
            self._unanswered += await finish_singly(link, self._worker_id, batch, self._tally)
        else:
            return await self._with_spans(link, answer) if self._is_traced and answer.claimed else answer
        return None

    def _is_done(self) -> bool:
        return self._is_stopping and not (self._holder.held_count() or self._ended or self._unanswered)

    def _is_sifting_due(self) -> bool:
        return bool(self._unanswered) and monotonic() >= self._sift_at

    async def _sift(self, link: Link) -> None:
        """Send again what was not answered, but not what all of its batch would wait for.

        Finishing twice does no harm: the second time is refused.
        """
        unanswered, self._unanswered = self._unanswered, []
        held = [(one.id, one.fencing_token) for one in unanswered]
        locked: set[str] = set()
        try:
            locked = await find_locked(link, self._worker_id, held, lease_seconds=self._lease_seconds)
        except DatabaseUnavailable:
            self._unanswered += unanswered
            await link.pause()
            return
        except Exception as error:  # noqa: BLE001 - then all of it is sent as it was
            link.say_refused(error)
        self._ended = [one for one in unanswered if one.id not in locked] + self._ended
        self._unanswered += [one for one in unanswered if one.id in locked]
        self._sift_at = monotonic() + LOCKED_SECONDS

    async def _with_spans(self, link: Link, answer: Exchanged) -> Exchanged:
        """Return the answer with the spans of the producers; without them, where they cannot be had."""
        try:
            spans = await link.ask(get_traceparents(self._worker_id, [one.id for one in answer.claimed]))
        except Exception as error:  # noqa: BLE001 - what was claimed shall be executed all the same
            logger.warning("the spans of producers cannot be read: %s", first_line(error))
            return answer
        return answer._replace(
            claimed=[one._replace(traceparent=spans.get(one.id)) for one in answer.claimed]
        )

    async def _extend(self, link: Link, answer: Exchanged, lease_until: float) -> tuple[Exchanged, float]:
        """Return an answer that was long in coming, with what of it is still ours, and until when that is certain.

        It comes late from behind a lock, say, or because this process was stopped.  What is left of the leases may be
        too little to wait for the heart's next beat, or nothing, and others may have the runs by now.
        """
        held, sent_at = sorted((one.id, one.fencing_token) for one in answer.claimed), monotonic()
        try:
            states = await link.ask(heartbeat_runs(self._worker_id, held, seconds=self._lease_seconds))
        except Exception as error:  # noqa: BLE001 - the heart will try again, and see to it that it is said
            logger.debug("leases were not extended at once: %s", first_line(error))
            return answer, lease_until
        claimed = [one for one in answer.claimed if states.get(one.id) == "leased"]
        # The heart goes on asking for these; but whoever holds the row may be taking the run, once its lease is over.
        is_ours = monotonic() < lease_until
        locked = [one for one in answer.claimed if is_ours and states.get(one.id) == "locked"]
        self._accept(locked, lease_until)
        if left := len(held) - len(claimed) - len(locked):
            logger.info("runs lost or cancelled before their claim was known: %d", left)
        return answer._replace(claimed=claimed), sent_at + self._lease_seconds

    async def _take(self, answer: Exchanged, batch: list[Finished], claim: Claim, lease_until: float) -> None:
        failpoints.hit("finished", len(batch))
        failpoints.hit("claimed", len(answer.claimed))
        if self._tally is not None:
            self._tally.count_finished(batch, answer.refused)
        self._accept(answer.claimed, lease_until)
        if claim.limit:
            self._plan_next_claim(answer, claim)
        elif any(one.status == "pending" for one in batch):
            self._pace.wake()  # nobody has told yet when these retries are due
        if answer.refused:
            logger.info("results refused, of runs cancelled or lost: %d", len(answer.refused))
        await self._holder.begin(is_stopping=self._is_stopping and claim.limit > 0)
        if 0 < len(answer.claimed) < claim.limit:
            # Nothing more was there: first the handlers begin, then the next question is made.  While runs flow it is
            # the other way round, so that they execute while it is at the server.
            await asyncio.sleep(0)

    def _accept(self, claimed: Sequence[Claimed], lease_until: float) -> None:
        if self._tally is not None:
            self._tally.count_claimed(claimed)
        self._holder.accept(claimed, lease_until)

    def _claim(self, limit: int) -> Claim:
        now = monotonic()
        where = self._lanes.where(now) if limit else Where("{}", False, 0)
        held = self._holder.held_count() + len(self._unanswered) + self._room.claiming
        return Claim(limit, held, where, now, self._pace.wakes)

    def _plan_next_claim(self, answer: Exchanged, claim: Claim) -> None:
        now, is_full = monotonic(), len(answer.claimed) == claim.limit
        if answer.lanes is not None:
            # The database's clock may be set while it looks: its word counts for no more than the answer took.
            cost = answer.look_seconds and min(answer.look_seconds, now - claim.sent_at)
            count = len(answer.claimed)
            self._lanes.found(claim.where, answer.lanes, cost, now, count=count, is_full=is_full)
        self._room.is_to_be_empty = answer.is_suspect_waiting or (
            claim.held > 0 and self._room.is_to_be_empty
        )
        if answer.is_suspect_waiting:
            return
        if answer.claimed:
            has_room = self._holder.held_count() < self._room.capacity()
            if self._pace.took_some(now, is_full=is_full, has_room=has_room):
                self.set_hungry(False)
        else:
            # Of what lies where nobody looked there is nothing to tell: look as soon as it may be.
            due = answer.due_in_seconds if claim.where.is_look else self._lanes.seconds_left(now)
            self._pace.found_nothing(now, due_in_seconds=due, wakes=claim.wakes)
            # Who holds something is given no suspect, and who looked in its lanes alone has not seen everything.
            if claim.where.is_look and not claim.held:
                look = Look(claim.sent_at, 0.0 if due is None else now + due)
                self._board.note(RUNS, self._question, look)
            self.set_hungry(not self._is_stopping)

    def _claim_limit(self) -> int:
        is_claiming = self._room.claiming > 0
        if (
            self._is_stopping
            or not self._holder.may_claim()
            or not self._pace.may_claim(is_claiming=is_claiming)
        ):
            return 0
        return self._room.limit(self._holder.held_count(), self._holder.free_count())

    def _is_batch_due(self, limit: int) -> bool:
        if self._ended:
            is_all = not self._holder.held_count() or len(self._ended) >= BATCH_MAX or self._is_stopping
            return is_all or monotonic() - self._ended_at >= FINISH_DELAY_SECONDS
        if limit <= 0 or self._pace.seconds_left(monotonic()) > 0:
            return False
        if look := self._board.read(RUNS, self._question):
            self._pace.others_found_nothing(look.looked_at, look.next_at or None)
        return self._pace.seconds_left(monotonic()) <= 0

    async def _wait(self, limit: int) -> None:
        if not limit and not self._room.claiming:
            self.set_hungry(False)  # no room: whoever has some shall be woken instead of us
        self._look_within(self._seconds_left(limit))
        self._changed.clear()
        await self._changed.wait()

    def _seconds_left(self, limit: int) -> float:
        """Return how long there is nothing to do, unless something changes."""
        seconds = LOOK_SECONDS
        if self._ended:
            seconds = min(seconds, FINISH_DELAY_SECONDS - (monotonic() - self._ended_at))
        elif limit:  # idle: nothing changes that does not say so
            seconds = self._pace.seconds_left(monotonic())
        if self._unanswered:
            seconds = min(seconds, self._sift_at - monotonic())
        return max(seconds, 0.0)

    def _look_within(self, seconds: float) -> None:
        """Let all that wait look again by then: one timer for all, which no time-out of each has to cancel."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + seconds
        if self._looking is None or look_at < self._looking.when():
            self._look_no_more()
            self._looking = loop.call_at(look_at, self._look)

    def _look(self) -> None:
        self._looking = None
        limit = self._claim_limit()
        if self._is_sifting_due() or self._is_batch_due(limit):
            self._changed.set()
        else:  # most likely another worker has looked meanwhile, and found nothing: nobody here need wake
            self._look_within(self._seconds_left(limit))
        self.on_awake()

    def _look_no_more(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
