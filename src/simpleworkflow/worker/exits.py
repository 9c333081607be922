"""Waiting for the end of a process without looking again and again, where the system can tell of it."""

from __future__ import annotations

import asyncio
import os
import subprocess

__all__ = ["wait_for_exit"]

LOOK_SECONDS = 0.05


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a child process as soon as it has ended."""
    if process.poll() is None:
        await _until_told(process.pid)
    while (code := process.poll()) is None:
        await asyncio.sleep(LOOK_SECONDS)
    return code


async def _until_told(pid: int) -> None:
    """Return when the process has ended; at once where the system has no descriptor that tells of it."""
    try:
        fd = os.pidfd_open(pid)  # not reaped yet, so the number is still its own
    except (AttributeError, OSError):  # no Linux, an old one, or no descriptor left
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
