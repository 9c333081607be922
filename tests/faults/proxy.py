"""A TCP proxy that knows PostgreSQL's messages, and breaks the network as it is told.

    with Proxy(database_url) as proxy:
        client = Client(proxy.url)
        lost = proxy.swallow(r"\\.submit\\(")  # the server does it, the client is cut off before it learns
        client.submit(...)
        assert lost.wait()

Lasting faults, for the connections of now and those to come, until ``heal()``:

    delay(seconds)                every message, in both directions
    trickle(bytes_per_second)     in each direction of each connection
    black_hole(direction, of)     what is sent is swallowed, nothing is closed: "both", "to_server", "to_client"
    refuse()                      nobody listens; present connections go on
    mute(answers)                 new connections get so many messages of the server, then nothing more
    speak(words)                  new connections are told these bytes and closed, by no PostgreSQL
    swallow(pattern, ...)         the n-th query that matches is done, its answer never comes
    aim(url)                      new connections lead to another server (``heal`` does not undo this)

Faults of the moment, for the present connections:

    reset(of)          both sides see a reset
    lose_server(of)    half-open: the server sees the end, the client nothing
    lose_client(of)    half-open: the client sees the end, the server nothing

``of`` is a regular expression: a connection is meant when it has executed, or executes later, a matching query
(prepared ones count each time).  What was seen: ``seen`` (SQL in its order, followed by the values that were bound),
``count(pattern)``, ``wait_for(pattern)``, ``connected_at`` (monotonic times of the connects), ``sessions(of)``.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Literal, Self, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from simpleworkflow.dburl import parse

Direction = Literal["both", "to_server", "to_client"]
T = TypeVar("T")

CANCEL_CODE, TLS_CODES = 80877102, (80877103, 80877104)  # the latter: TLS, GSS encryption
CANCEL = "(cancel request)"  # how one is named in ``seen``
_pause = threading.Event()  # never set


class Swallowed:
    """A query whose answer is to be lost: what was asked for, and whether it has happened."""

    def __init__(self, pattern: str, saying: str, nth: int, then: str, what: str) -> None:
        self.pattern, self.saying = re.compile(pattern, re.IGNORECASE | re.DOTALL), saying.encode()
        self.then, self.what = then, what
        self._left = nth
        self.happened = threading.Event()

    def is_next(self) -> bool:
        """Count one more that matches; return whether it is the one."""
        self._left -= 1
        return not self._left

    def wait(self, seconds: float = 10) -> bool:
        """Wait until the server has done the query (or would have got it) and nobody was told."""
        return self.happened.wait(seconds)


class Session:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter, answers: int | None) -> None:
        self.near, self.far = near, far
        self.seen: list[str] = []
        self.silent: set[str] = set()
        self.has_lost = False  # bytes are missing: it cannot be healed
        self.answers_left = answers
        self.wanted: Swallowed | None = None  # the present answer may be the one to lose, so it is held
        self.held: list[bytes] = []
        self.prepared: dict[bytes, str] = {}
        self.asked, self.answered = 1, 0  # the start counts as a question
        self.last_answer = 0  # when so many are complete, the held one is
        self.is_started = self.awaits_tls_answer = self.is_opaque = False

    def is_of(self, pattern: str) -> bool:
        """Return whether it has executed a query that matches."""
        return not pattern or any(_matches(pattern, sql) for sql in self.seen)

    def fall_silent(self, direction: Direction) -> None:
        self.silent |= {"to_server", "to_client"} if direction == "both" else {direction}

    def end(self, *writers: asyncio.StreamWriter) -> None:
        """Reset these sides."""
        for writer in writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            writer.transport.abort()


class Proxy:
    """A proxy in front of the server of ``url``; its own ``url`` leads through it.  See the module."""

    def __init__(self, url: str) -> None:
        self._place = parse(url)
        self.aim(url)
        self.seen: list[str] = []
        self.connected_at: list[float] = []
        self._sessions: set[Session] = set()
        self._clear()
        self.port = 0
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        ready.result(10)
        self.url = self.url_with()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the proxy and its connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(10)

    def url_with(self, **words: object) -> str:
        """Return the URL through the proxy with other connection parameters, such as ``sslmode``."""
        words = {"host": "127.0.0.1", "port": self.port, "sslmode": "disable"} | words
        through = parse(make_conninfo(self._place.conninfo, **words)).conninfo  # type: ignore[arg-type]
        return f"{through}{'&' if '?' in through else '?'}schema={self._place.schema}"

    # ── lasting faults ─────────────────────────────────────────────────────────────────────────────

    def delay(self, seconds: float) -> None:
        self._delay = seconds

    def trickle(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second

    def black_hole(self, direction: Direction = "both", *, of: str = "") -> None:
        def begin() -> None:
            self._holes.append((direction, of))
            for session in self._sessions:
                if session.is_of(of):
                    session.fall_silent(direction)

        self._on_loop(begin)

    def refuse(self) -> None:
        self._on_loop(self._server.close)

    def mute(self, *, answers: int = 0) -> None:
        self._answers = answers

    def speak(self, words: bytes) -> None:
        self._words = words

    def swallow(
        self,
        pattern: str,
        *,
        saying: str = "",
        nth: int = 1,
        then: Literal["cut", "silence"] = "cut",
        what: Literal["answer", "query"] = "answer",
    ) -> Swallowed:
        """Lose an answer, or a query itself: the n-th that matches; then cut the line or say nothing.

        ``saying``: only an answer that has this text in it, a run's id, say.
        """
        wanted = Swallowed(pattern, saying, nth, then, what)
        self._on_loop(lambda: self._wanted.append(wanted))
        return wanted

    def aim(self, url: str) -> None:
        words = conninfo_to_dict(parse(url).conninfo)
        self._target = (str(words["host"]), int(words.get("port") or 5432))

    def heal(self) -> None:
        """End all lasting faults; connections that have lost something are reset."""

        def begin() -> None:
            self._clear()
            for session in [one for one in self._sessions if one.silent or one.has_lost]:
                session.end(session.near, session.far)
                self._sessions.discard(session)

        self._on_loop(begin)
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def _clear(self) -> None:
        self._delay = 0.0
        self._bytes_per_second: int | None = None
        self._holes: list[tuple[Direction, str]] = []
        self._answers: int | None = None
        self._words: bytes | None = None
        self._wanted: list[Swallowed] = []

    # ── faults of the moment ───────────────────────────────────────────────────────────────────────

    def reset(self, *, of: str = "") -> int:
        """Return how many connections were reset."""
        return self._each(of, lambda session: session.end(session.near, session.far))

    def lose_server(self, *, of: str = "") -> int:
        return self._lose(of, lambda session: session.far)

    def lose_client(self, *, of: str = "") -> int:
        return self._lose(of, lambda session: session.near)

    def _lose(self, of: str, side: Callable[[Session], asyncio.StreamWriter]) -> int:
        def begin(session: Session) -> None:
            session.fall_silent("both")
            session.end(side(session))

        return self._each(of, begin)

    def _each(self, of: str, do: Callable[[Session], None]) -> int:
        def begin() -> int:
            meant = [session for session in self._sessions if session.is_of(of)]
            for session in meant:
                do(session)
            return len(meant)

        return self._on_loop(begin)

    # ── what was seen ──────────────────────────────────────────────────────────────────────────────

    def sessions(self, of: str = "") -> list[Session]:
        """Return the connections that are open on at least one side."""
        return self._on_loop(lambda: [session for session in self._sessions if session.is_of(of)])

    def count(self, pattern: str) -> int:
        return sum(1 for sql in list(self.seen) if _matches(pattern, sql))

    def wait_for(self, pattern: str, *, count: int = 1, seconds: float = 10) -> None:
        """Wait until so many matching queries have been seen since the beginning."""
        until = monotonic() + seconds
        while self.count(pattern) < count:
            assert monotonic() < until, f"{self.count(pattern)} of {count} queries {pattern!r} in {seconds} s"
            _pause.wait(0.005)

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────

    def _on_loop(self, call: Callable[[], T]) -> T:
        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    async def _run(self, ready: Future[None]) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        await self._listen()
        ready.set_result(None)
        await self._over.wait()
        self._server.close()
        for session in self._sessions:
            session.end(session.near, session.far)
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=1)

    async def _listen(self) -> None:
        if not self.port or not self._server.is_serving():
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.connected_at.append(monotonic())
        if self._words is not None:
            with suppress(OSError):
                await reader.read(1 << 16)  # what is unread at a close becomes a reset
            near.write(self._words)
            near.close()
            return
        try:
            answers, far = await asyncio.open_connection(*self._target)
        except OSError:
            near.transport.abort()
            return
        session = Session(near, far, self._answers)
        for direction, of in self._holes:
            if not of:
                session.fall_silent(direction)
        self._sessions.add(session)
        await asyncio.gather(self._carry_queries(session, reader), self._carry_answers(session, answers))
        if near.is_closing() and far.is_closing():
            self._sessions.discard(session)

    async def _carry_queries(self, session: Session, reader: asyncio.StreamReader) -> None:
        buffer = b""
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if session.is_opaque:
                    await self._pass(session, "to_server", chunk)
                    continue
                frames, buffer = _split(buffer + chunk, session)
                for frame in frames:
                    self._note(session, frame)
                    await self._pass(session, "to_server", frame)
        if "to_server" not in session.silent:
            session.far.close()

    async def _carry_answers(self, session: Session, reader: asyncio.StreamReader) -> None:
        buffer = b""
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if session.awaits_tls_answer:
                    session.awaits_tls_answer = False
                    session.is_opaque = chunk == b"S"
                    await self._pass(session, "to_client", chunk)
                    continue
                if session.is_opaque:
                    await self._pass(session, "to_client", chunk)
                    continue
                frames, buffer = _split_typed(buffer + chunk)
                await self._pass(session, "to_client", b"".join(self._answers_to_pass(session, frames)))
        if "to_client" not in session.silent:
            session.near.close()

    def _note(self, session: Session, frame: bytes) -> None:
        """Keep count of what the client asks, and begin what was told to happen at it."""
        kind, sql = frame[:1], None
        if not session.is_started:
            session.is_started, session.awaits_tls_answer = _starts(frame)
            sql = CANCEL if frame[4:8] == CANCEL_CODE.to_bytes(4, "big") else None
        elif kind == b"Q":
            session.asked += 1
            sql = frame[5:-1].decode(errors="replace")
        elif kind == b"S":
            session.asked += 1
        elif kind == b"P":
            name, _, rest = frame[5:].partition(b"\0")
            session.prepared[name] = rest.partition(b"\0")[0].decode(errors="replace")
        elif kind == b"B":
            name, _, values = frame[5:].partition(b"\0")[2].partition(b"\0")
            sql = f"{session.prepared.get(name, '')} {values.decode(errors='replace')}"
        if sql is not None:
            self._executed(session, sql, session.asked + (kind == b"B"))

    def _executed(self, session: Session, sql: str, answer: int) -> None:
        session.seen.append(sql)
        self.seen.append(sql)
        for direction, of in self._holes:
            if _matches(of, sql):
                session.fall_silent(direction)
        for wanted in [one for one in self._wanted if one.pattern.search(sql)]:
            if wanted.what == "answer":
                session.wanted, session.last_answer = wanted, answer
            elif wanted.is_next():
                self._swallow(session, wanted)

    def _answers_to_pass(self, session: Session, frames: list[bytes]) -> Iterator[bytes]:
        for frame in frames:
            session.answered += frame[:1] == b"Z"
            if session.answers_left is not None:
                if not session.answers_left:
                    session.has_lost = True
                    continue
                session.answers_left -= 1
            if session.wanted is None:
                yield frame
                continue
            session.held.append(frame)
            if session.answered >= session.last_answer:
                yield from self._pass_or_swallow(session, session.wanted)

    def _pass_or_swallow(self, session: Session, wanted: Swallowed) -> Iterator[bytes]:
        answer, session.held, session.wanted = session.held, [], None
        if wanted in self._wanted and wanted.saying in b"".join(answer) and wanted.is_next():
            self._swallow(session, wanted)
        else:
            yield from answer

    def _swallow(self, session: Session, wanted: Swallowed) -> None:
        self._wanted.remove(wanted)
        session.has_lost = True
        session.fall_silent("both")
        if wanted.then == "cut":
            session.end(session.near, session.far)
        wanted.happened.set()

    async def _pass(self, session: Session, direction: str, message: bytes) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        writer = session.far if direction == "to_server" else session.near
        size = max(1, self._bytes_per_second // 20) if self._bytes_per_second else max(1, len(message))
        for start in range(0, len(message), size):
            if direction in session.silent:
                session.has_lost = True
                return
            writer.write(message[start : start + size])
            await writer.drain()
            if self._bytes_per_second:
                await asyncio.sleep(size / self._bytes_per_second)


def _matches(pattern: str, sql: str) -> bool:
    return re.search(pattern, sql, re.IGNORECASE | re.DOTALL) is not None


# ── PostgreSQL's framing ───────────────────────────────────────────────────────────────────────────


def _split(buffer: bytes, session: Session) -> tuple[list[bytes], bytes]:
    """Return the client's whole messages, and what is left; the first ones have no type."""
    if session.is_started:
        return _split_typed(buffer)
    if len(buffer) < 8 or len(buffer) < (size := int.from_bytes(buffer[:4], "big")):
        return [], buffer
    first, rest = buffer[:size], buffer[size:]
    if _starts(first)[0]:
        more, rest = _split_typed(rest)
        return [first, *more], rest
    return [first], rest


def _starts(first: bytes) -> tuple[bool, bool]:
    """Return whether a message without a type starts the session, and whether one byte answers it."""
    asks_for_tls = int.from_bytes(first[4:8], "big") in TLS_CODES
    return not asks_for_tls, asks_for_tls


def _split_typed(buffer: bytes) -> tuple[list[bytes], bytes]:
    frames, start = [], 0
    while len(buffer) >= start + 5:
        end = start + 1 + int.from_bytes(buffer[start + 1 : start + 5], "big")
        if len(buffer) < end:
            break
        frames.append(buffer[start:end])
        start = end
    return frames, buffer[start:]
