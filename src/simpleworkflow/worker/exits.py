"""Waiting for the end of a process without looking again and again, where the system can tell of it."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess

__all__ = ["has_ended", "open_end", "wait_for_exit"]

LOOK_SECONDS = 0.05


def open_end(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; None where the system has none.

    It needs nobody to reap the process, and takes no notice of what that has forked, which holds its pipes open.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # no Linux, an old one, no descriptor left, or no such process any more
        return None


def has_ended(fd: int, *, seconds: float = 0.0) -> bool:
    """Return whether the process of ``open_end`` has ended; blocks for up to ``seconds`` if it has not."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a child process as soon as it has ended."""
    if process.poll() is None:  # not reaped yet, so the number is still its own
        await _until_told(process.pid)
    while (code := process.poll()) is None:
        await asyncio.sleep(LOOK_SECONDS)
    return code


async def _until_told(pid: int) -> None:
    """Return when the process has ended; at once where the system has no descriptor that tells of it."""
    if (fd := open_end(pid)) is None:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
