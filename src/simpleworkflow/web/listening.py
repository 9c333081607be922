"""The routes that go on: all events as they happen, and the stats each second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from simpleworkflow.client import verbs
from simpleworkflow.model import Run
from simpleworkflow.web.bodies import In, Pattern
from simpleworkflow.web.errors import ApiError
from simpleworkflow.web.overview import WindowQuery
from simpleworkflow.web.paced import Paced
from simpleworkflow.web.position import Position
from simpleworkflow.web.routes import Call, Route
from simpleworkflow.web.sse import EventStream, Streams, message
from simpleworkflow.web.store import Store
from simpleworkflow.web.stream import Listening, Tail, begin, follow_all, follow_run

__all__ = ["ROUTES", "Live"]

STATS_SECONDS = 1.0


class Live:
    """What the streams of one application share."""

    def __init__(self, store: Store) -> None:
        self.streams = Streams()
        self.tail = Tail(store)
        self._store = store
        self._stats: dict[int, Paced[bytes]] = {}

    async def stats(self, window_seconds: int) -> bytes:
        """Return the stats as JSON, as they were a second ago at most: one question for all who look."""
        asked = self._stats.pop(window_seconds, None)
        while len(self._stats) >= 16:  # windows that nobody looks at any more
            self._stats.pop(next(iter(self._stats)))
        self._stats[window_seconds] = asked = asked or self._asks(window_seconds)
        return await asked.get()

    def _asks(self, window_seconds: int) -> Paced[bytes]:
        async def ask() -> bytes:
            return msgspec.json.encode(await self._store.stats(window_seconds))

        seconds = STATS_SECONDS * 0.9
        return Paced(ask, seconds=seconds, seconds_max=seconds)


class StreamQuery(In):
    """Which events to listen to; ``cursor``: those after this id, where no header ``Last-Event-ID`` says it."""

    pattern: tuple[Pattern, ...] = ()
    run: UUID | None = None
    cursor: Annotated[str, Meta(max_length=7000)] | None = None


async def stream_events(call: Call) -> Response:
    """Tell events as they happen."""
    live: Live = call.app
    query: StreamQuery = call.query
    live.streams.check()
    said = call.request.headers.get("last-event-id") or query.cursor
    position = None if said is None else _position(said)
    listening = Listening(query.pattern or None, call.shows_contents)
    if query.run is not None:
        run: Run = await call.read(verbs.get(query.run, as_text=True))
        await live.tail.look()
        after = 0 if position is None else position.after
        return EventStream(follow_run(call.store, live.tail, run, after, listening), live.streams)
    begun = await begin(live.tail)
    if position is not None and position.after > live.tail.last_id:
        raise ApiError(
            "conflict",
            f"cursor: expected an id up to {live.tail.last_id}, got {position.after}: it is of another database",
            "leave the cursor out, and read what there is anew",
        )
    return EventStream(follow_all(call.store, live.tail, position or begun, listening), live.streams)


def _position(said: str) -> Position:
    try:
        return Position.parse(said)
    except ValueError as error:
        raise ApiError("invalid_input", f"cursor: {error}, got {said[:60]!a}") from None


async def stream_stats(call: Call) -> Response:
    """Tell the stats each second."""
    live: Live = call.app
    live.streams.check()
    window = call.query.window_seconds
    await live.stats(window)
    return EventStream(_stats(live, window), live.streams)


async def _stats(live: Live, window: int) -> AsyncIterator[bytes]:
    while True:
        yield message(await live.stats(window), event="stats")
        await asyncio.sleep(STATS_SECONDS)


ROUTES = [
    Route(
        path="/events",
        handle=stream_events,
        summary="All events as they happen, or those of one run; go on with the header Last-Event-ID",
        query=StreamQuery,
        answers={200: None},
        media="text/event-stream",
        finds="run",
        conflicts=True,
    ),
    Route(
        path="/stats/stream",
        handle=stream_stats,
        summary="The stats, each second",
        query=WindowQuery,
        answers={200: None},
        media="text/event-stream",
    ),
]
