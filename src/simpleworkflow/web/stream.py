"""The stream of all events: nothing lost, nothing twice, from wherever somebody was.

Each who listens has a position and reads for itself when there may be something new; so who is slow costs nothing but
its own delay.  What is shared is the knowledge how far ids have been given out, and how far they are settled: see
sql/migrations/0010_server.sql and position.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import NamedTuple

import msgspec
from msgspec import Raw

from simpleworkflow.model import Run
from simpleworkflow.statements import list_events
from simpleworkflow.statements.serving import StreamEvent, StreamPlace, read_stream, stream_place
from simpleworkflow.web.bodies import StreamBody, raw
from simpleworkflow.web.position import Position
from simpleworkflow.web.sse import message
from simpleworkflow.web.store import Store

__all__ = ["Listening", "Tail", "begin", "follow_all", "follow_run"]

LOOK_SECONDS = 0.25
READ_AT_ONCE = 200
# So often is something said, so that who is between does not take the connection for dead.
QUIET_SECONDS_MAX = 15.0
# Who begins now is told at most so many of the last events, where it is not known whether others come between them.
REPLAYED_MAX = 10_000
_MARKS_MAX = 256


class _Mark(NamedTuple):
    """All ids up to ``last_id`` are settled when no transaction below ``xmax`` goes on."""

    last_id: int
    xmax: int


class Tail:
    """Knows how far ids of events have been given out and are settled; looks only while somebody listens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: deque[_Mark] = deque()
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self.last_id = 0
        self.settled = 0

    async def look(self) -> None:
        """Know what was so a moment ago, asked once for all who listen.

        Raises:
            DatabaseUnavailable: it cannot be asked.
            TimeoutError: it does not answer.
        """
        if self._looking is not None:
            await asyncio.shield(self._looking)
        elif monotonic() - self._looked_at >= LOOK_SECONDS / 2:
            self._looking = asyncio.ensure_future(self._look())
            self._looking.add_done_callback(self._has_looked)
            await asyncio.shield(self._looking)

    def _has_looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # whoever waits has it

    async def _look(self) -> None:
        place: StreamPlace = await self._store.ask(stream_place())
        self._note(place)
        self._looked_at = monotonic()

    def _note(self, place: StreamPlace) -> None:
        # What was known before this snapshot to be given out is covered by it, not what this call read.
        mark = _Mark(self.last_id, place.xmax)
        if not self._marks or self._marks[-1].last_id < mark.last_id:
            if len(self._marks) == _MARKS_MAX:
                self._marks.pop()  # settled with the next, later
            self._marks.append(mark)
        while self._marks and self._marks[0].xmax <= place.xmin:
            self.settled = max(self.settled, self._marks.popleft().last_id)
        self.last_id = max(self.last_id, place.last_id)


class Listening(NamedTuple):
    """What one who listens asks for: which types (None: all), and whether it may read what events say."""

    patterns: Sequence[str] | None
    shows_contents: bool


async def begin(tail: Tail) -> Position:
    """Return the position of now: what is committed from here on comes, also below the last id that is known."""
    for _ in range(3):  # after its start a server learns with its second look what is settled
        await tail.look()
        if tail.settled or not tail.last_id:
            break
        await asyncio.sleep(LOOK_SECONDS)
    low = max(tail.settled, tail.last_id - REPLAYED_MAX) + 1
    return Position(tail.last_id, [(low, tail.last_id)] if low <= tail.last_id else [])


async def follow_all(
    store: Store, tail: Tail, position: Position, listening: Listening
) -> AsyncIterator[bytes]:
    """Yield the events after ``position`` as messages, as they can be seen."""
    said_at, said = monotonic(), str(position)
    yield message(None, id_=said)
    while True:
        settled = tail.settled  # as it was before the read: all up to it is seen there, or never
        events = await store.ask(
            read_stream(position.after, position.gaps, listening.patterns, limit=READ_AT_ONCE)
        )
        is_whole = True
        for event in events:
            if not position.take(event.id, settled):
                break  # there is more, but nothing to do before something is settled
            if event.run_id is not None:
                said_at, said = monotonic(), str(position)
                yield message(_encoded(event, listening), id_=said, event=event.event_type)
        else:
            is_whole = len(events) < READ_AT_ONCE
            if is_whole:
                position.end(settled)
        if monotonic() - said_at > QUIET_SECONDS_MAX:
            said_at, said = monotonic(), str(position)
            yield message(None, id_=said)
        if is_whole:
            await _next_look(tail, position)


async def _next_look(tail: Tail, position: Position) -> None:
    """Wait until there may be something to read, or something is to be said."""
    waited_from = monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await tail.look()
        is_quiet = monotonic() - waited_from > QUIET_SECONDS_MAX
        if position.gaps or tail.last_id > position.after or is_quiet:
            return


async def follow_run(
    store: Store, tail: Tail, run: Run, after: int, listening: Listening
) -> AsyncIterator[bytes]:
    """Yield the events of one run after that one: within a run they are committed in the order of their ids."""
    said_at = monotonic()
    yield message(None, id_=str(after))
    while True:
        place = tail.last_id
        events = await store.ask(list_events(run.id, after=after, limit=READ_AT_ONCE, as_text=True))
        for one in events:
            after, said_at = one.id, monotonic()
            told = StreamEvent(one.id, one.run_id, one.event_type, one.data, one.created_at, run.type)  # type: ignore[arg-type]  # asked for as text
            yield message(_encoded(told, listening), id_=str(after), event=one.event_type)
        if monotonic() - said_at > QUIET_SECONDS_MAX:
            said_at = monotonic()
            yield message(None, id_=str(after))
        if len(events) < READ_AT_ONCE:
            # In flight where that was asked, seen a look later: so twice more after each change.
            await _next_look(tail, Position(place, [(0, 0)] if tail.settled < place else []))


def _encoded(event: StreamEvent, listening: Listening) -> bytes:
    assert event.run_id is not None
    assert event.event_type is not None
    assert event.created_at is not None
    data = raw(event.data) if listening.shows_contents and event.data is not None else Raw(b"{}")
    return msgspec.json.encode(
        StreamBody(event.id, event.run_id, event.event_type, data, event.created_at, event.type)
    )
