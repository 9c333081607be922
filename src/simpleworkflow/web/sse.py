"""Server-sent events: an answer that goes on until either side ends it, and holds nothing for who does not read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from simpleworkflow.errors import DatabaseUnavailable
from simpleworkflow.web.errors import ApiError

__all__ = ["EventStream", "Streams", "message"]

logger = logging.getLogger("simpleworkflow.web")

STREAMS_MAX = 200
# Then it ends, and whoever comes back is asked again who they are.
STREAM_SECONDS_MAX = 300.0
# Who takes nothing for so long is let go; it comes back to where it was.
SILENT_SECONDS_MAX = 30.0


def message(text: bytes | None, *, id_: str | None = None, event: str | None = None) -> bytes:
    """Return one message; without ``text`` the browser only remembers the id."""
    lines = []
    if id_ is not None:
        lines.append(b"id: " + id_.encode())
    if event is not None:
        lines.append(b"event: " + event.replace("\n", " ").replace("\r", " ").encode())
    if text is not None:
        lines.append(b"data: " + text)  # JSON of ours has no line breaks
    return b"\n".join(lines) + b"\n\n"


class Streams:
    """The streams that are open, to be ended together when the server stops."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def check(self) -> None:
        """Do nothing if one more may be opened.

        Raises:
            ApiError: there are too many, or the server stops.
        """
        if self._is_closed:
            raise ApiError("unavailable", "the server is stopping", "connect again")
        if len(self._open) >= STREAMS_MAX:
            raise ApiError("unavailable", f"{STREAMS_MAX} streams are open, which is the most", "close some")

    def close(self) -> None:
        """End all streams, and let no other begin."""
        self._is_closed = True
        for task in self._open:
            task.cancel()

    async def run(self, task: asyncio.Task[None]) -> None:
        """Wait for a stream that is open."""
        self._open.add(task)
        try:
            if self._is_closed:
                task.cancel()
            await asyncio.wait({task})
        finally:
            self._open.discard(task)


class EventStream(Response):
    """Sends what ``parts`` yields, one after the other: the next is asked for when the last is on its way."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[bytes], streams: Streams) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._parts = parts
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer, until the client is gone, is silent for too long, or the server stops."""
        writing = asyncio.ensure_future(self._write(send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        leaving.add_done_callback(lambda _: writing.cancel())
        ending = asyncio.get_running_loop().call_later(STREAM_SECONDS_MAX, writing.cancel)
        try:
            await self._streams.run(writing)
        finally:
            ending.cancel()
            leaving.cancel()
            writing.cancel()
            with suppress(asyncio.CancelledError, TimeoutError, OSError):
                await writing
        with suppress(TimeoutError, OSError):
            await _send(send, b"", more_body=False)  # nothing happens where the client has gone

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for part in self._parts:
                await _send(send, part, more_body=True)
        except (DatabaseUnavailable, TimeoutError):
            pass  # the client comes back, to where it was
        except Exception as error:  # the edge; the answer has begun, so nobody else could be told
            logger.exception("a stream failed unforeseen", exc_info=error)


async def _send(send: Send, body: bytes, *, more_body: bool) -> None:
    async with asyncio.timeout(SILENT_SECONDS_MAX):
        await send({"type": "http.response.body", "body": body, "more_body": more_body})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
