"""Messages between a worker and a process of its own: of each its length, then its bytes.

The worker's end never blocks its loop: not on a process that was stopped amid a message, and not on one that died amid
a message while what it had forked holds the other end open.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from multiprocessing.process import BaseProcess

__all__ = ["Channel", "ProcessEnd"]

ALIVE_CHECK_SECONDS = 1.0  # where the system does not tell of a process's end
HEADER = struct.Struct("!I")
CHUNK_BYTES = 65536


class Channel:
    """The worker's end.  ``end`` is a descriptor that tells of the process's end; None: it is asked now and then."""

    def __init__(self, ours: socket.socket, process: BaseProcess, end: int | None) -> None:
        ours.setblocking(False)
        self._socket = ours
        self._process = process
        self._end = end
        self._has_ended = False
        self._received = bytearray()

    async def send(self, message: bytes) -> None:
        """Send a message as soon as there is room for it.

        Raises:
            EOFError: the process has ended.
            OSError: the other end is closed.
        """
        rest = memoryview(HEADER.pack(len(message)) + message)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self._refuse_end()
                await self._be_told(is_sending=True)

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            EOFError: the process has ended, or closed its end, and has left no whole message.
            OSError: the other end is closed.
        """
        while (message := self._take()) is None:
            await self._be_told()
            try:
                data = self._socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                self._refuse_end()
                continue
            if not data:
                raise EOFError
            self._received += data
        return message

    def close(self) -> None:
        """Close the worker's end."""
        self._socket.close()

    def _take(self) -> bytes | None:
        if len(self._received) < HEADER.size:
            return None
        end = HEADER.size + HEADER.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        message = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return message

    def _refuse_end(self) -> None:
        """Raise EOFError where the process was told to have ended: nothing more can come, and nothing be taken."""
        if self._has_ended:
            raise EOFError

    async def _be_told(self, *, is_sending: bool = False) -> None:
        """Return when the socket is ready, or the process has ended."""
        loop, socket_ = asyncio.get_running_loop(), self._socket.fileno()
        told: asyncio.Future[None] = loop.create_future()
        try:
            if is_sending:
                loop.add_writer(socket_, _tell, told)
            else:
                loop.add_reader(socket_, _tell, told)
            if self._end is not None:
                loop.add_reader(self._end, self._note_end, told)
                await told
            else:
                await asyncio.wait([told], timeout=ALIVE_CHECK_SECONDS)
                self._has_ended = not self._process.is_alive()
        finally:
            loop.remove_writer(socket_) if is_sending else loop.remove_reader(socket_)
            if self._end is not None:
                loop.remove_reader(self._end)

    def _note_end(self, told: asyncio.Future[None]) -> None:
        self._has_ended = True
        _tell(told)


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)


class ProcessEnd:
    """The process's end, which blocks; for one thread at a time."""

    def __init__(self, theirs: socket.socket) -> None:
        self._file = theirs.makefile("rwb")

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            OSError: the worker has gone.
        """
        self._file.write(HEADER.pack(len(message)) + message)
        self._file.flush()

    def receive(self) -> bytes:
        """Return the next message.

        Raises:
            EOFError: the worker has gone.
        """
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise EOFError
        return self._file.read(HEADER.unpack(header)[0])
