"""A pipe that says who is alive: the reader sees its end the moment that the writer dies, however it dies.

Its first line carries what the reader needs to know, passwords included, which so stand in no argument
list and no environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from simpleworkflow.resolve import Database
from simpleworkflow.worker.exits import open_end

__all__ = [
    "BYE",
    "GO",
    "HURRY",
    "STOP",
    "Dependent",
    "describe_exit",
    "hear",
    "ignore_signals",
    "read_order",
    "watch_lifeline",
]

PARENT_CHECK_SECONDS = 0.5
# Where the system tells of the parent's end: no more than whether a handler has closed the descriptors.
LIFELINE_CHECK_SECONDS = 10.0
# Ctrl-C, the terminal's end and the end of a service reach all its processes; what becomes of these is for whoever
# started them.  A child that is only starting holds nothing, and SIGTERM may end it.
IGNORED = {
    "child": {signal.SIGINT, signal.SIGHUP},
    "heart": {signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT},
}
BYE = b"bye\n"
HURRY = b"hurry\n"
GO = b"go\n"
STOP = b"stop\n"


class Dependent:
    """A process that is told what to do, and learns at once when we are gone.

    It is given the descriptors ``fds`` as arguments, and ``named_fds``, which its order names.
    """

    def __init__(
        self,
        role: str,
        order: Callable[[int], dict[str, Any]],
        fds: Sequence[int],
        *,
        named_fds: Sequence[int] = (),
    ) -> None:
        reading, self._writing = os.pipe()
        # Blocked from its first moment on: it can ignore them only when it has imported what it needs.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED[role])
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "simpleworkflow.worker", role, str(reading), *map(str, fds)],
                pass_fds=[reading, *fds, *named_fds],
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(reading)
        # Written after the start, so that the order can hold the process id.
        with suppress(BrokenPipeError):
            os.write(self._writing, json.dumps(order(self.process.pid)).encode() + b"\n")

    def say(self, word: bytes) -> None:
        """Tell the process: ``BYE``, that the end of the lifeline will be no accident; or what else to do."""
        with suppress(OSError):
            os.write(self._writing, word)

    def close(self) -> None:
        """Cut the lifeline."""
        with suppress(OSError):
            os.close(self._writing)


def ignore_signals(role: str) -> None:
    """Ignore what is not for a process of this role; what came while it started is forgotten."""
    for number in IGNORED[role]:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED[role])


def read_order(fd: int) -> dict[str, Any]:
    """Return what the first line of the lifeline says; blocks until it is there."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte:
            raise SystemExit(1)  # whoever started us is gone already
        line += byte
    order: dict[str, Any] = json.loads(line)
    return order


def hear(fd: int) -> Iterator[bytes]:
    """Yield what the other side says, until it has gone, or a handler has closed the descriptor.

    Blocks: for a thread, which no handler can hold up.
    """
    parent, poll = os.getppid(), select.poll()
    poll.register(fd, select.POLLIN)
    # A process that the other side forked may keep its end open: then the parent's own end tells.
    ended = open_end(parent)
    seconds = PARENT_CHECK_SECONDS
    if ended is not None:
        poll.register(ended, select.POLLIN)
        seconds = LIFELINE_CHECK_SECONDS
    try:
        while os.getppid() == parent:
            heard = dict(poll.poll(seconds * 1000))
            if ended in heard and heard[ended] & select.POLLNVAL:  # a handler has closed it
                poll.unregister(ended)
                seconds = PARENT_CHECK_SECONDS
            if fd in heard:
                try:
                    said = os.read(fd, 100)
                except OSError:
                    return
                if not said:
                    return
                yield said
    finally:
        if ended is not None:
            with suppress(OSError):  # a handler has closed it
                os.close(ended)


async def watch_lifeline(fd: int) -> bool:
    """Return when the other side has gone: True if it said bye, False if it just died."""
    loop, parent = asyncio.get_running_loop(), os.getppid()
    reader = asyncio.StreamReader()
    with os.fdopen(fd, "rb", closefd=False) as pipe:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            said = b""
            # A process that the other side forked may keep its end open: then a new parent tells.
            while not reader.at_eof() and os.getppid() == parent:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PARENT_CHECK_SECONDS):
                        said += await reader.read(100)
        finally:
            transport.close()
    return BYE in said


def database_order(database: Database) -> dict[str, Any]:
    """Return the database as part of an order."""
    return asdict(database)


def describe_exit(code: int | None) -> str:
    """Return how a process ended, for people."""
    if code is None:
        return "exit code unknown"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
