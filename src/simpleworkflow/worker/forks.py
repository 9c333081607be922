"""Forks that handlers make: what returns into the worker's code ends there, and speaks for no run.

A fork has copies of all our sockets and shares our slot table and our event loop's descriptors.  One that runs a
program or another function (``subprocess``, ``multiprocessing``) never comes back to us; one from a bare
``os.fork()`` does, and would execute everybody's handlers a second time.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref

__all__ = ["check_process", "end_fork", "end_forks_of_loop"]

FORK_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


def end_fork(pid: int) -> None:
    """End this process if it is not the one that was ``pid``: a fork has come back from a handler."""
    if os.getpid() != pid:
        os._exit(FORK_EXIT_CODE)


def check_process(pid: int) -> None:
    """Refuse to speak for a run in a fork.

    Raises:
        RuntimeError: this process is not the one that was ``pid``.
    """
    if os.getpid() != pid:
        raise RuntimeError("expected the process that the handler was called in, got a fork of it")


def end_forks_of_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End every fork that comes back to ``loop``, before anything else of the loop happens in it."""
    if not _loops:
        os.register_at_fork(after_in_child=_end_at_next_step)
        _loops.append(weakref.WeakSet())
    _loops[0].add(loop)


def _end_at_next_step() -> None:
    for loop in _loops[0]:
        # The loop's own list of what is ready holds the steps of other handlers: they shall not happen twice, and
        # not be thrown away either, which would run their cleaning up.
        ready = getattr(loop, "_ready", None)
        if ready is not None and getattr(loop, "_thread_id", None) == threading.get_ident():
            _never_done.extend(ready)
            ready.clear()
            loop.call_soon(os._exit, FORK_EXIT_CODE)


_loops: list[weakref.WeakSet[asyncio.AbstractEventLoop]] = []
_never_done: list[object] = []
