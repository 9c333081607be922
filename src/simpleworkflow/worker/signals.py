"""The signals that stop a worker in a program of its own, and the deadline that they start."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

__all__ = ["STOP_SIGNALS", "Deadline", "heeded"]

logger = logging.getLogger("simpleworkflow.worker")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LOOK_SECONDS = 0.1


@contextmanager
def heeded(
    loop: asyncio.AbstractEventLoop, stop: Callable[[], None], noticed: Callable[[], None]
) -> Iterator[None]:
    """Let the stop signals call ``stop`` on the loop; afterwards the program's own handlers are back.

    A handler that the program has set is called as well; a signal that it ignores (nohup) stays ignored.
    ``noticed`` is called at once, in the main thread, also when a handler of ours blocks the loop: not by the
    loop, which would be ``loop.add_signal_handler``'s way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def heed(number: int, frame: FrameType | None) -> None:
        noticed()
        loop.call_soon_threadsafe(stop)
        if callable(own := before[signal.Signals(number)]) and not _ends_by_default(own):
            own(number, frame)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, heed)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is heed:
                signal.signal(number, handler)


def _ends_by_default(handler: Callable[..., object]) -> bool:
    # asyncio.run's own handler of Ctrl-C cancels the program's main coroutine.
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return handler is signal.default_int_handler or isinstance(runner, asyncio.Runner)


class Deadline:
    """Ends the program when it is not gone in time after a signal: a blocked loop cannot stop by itself.

    In a thread, started beforehand: to start one in the middle of a signal handler may block for ever.
    """

    def __init__(self, *, grace_seconds: float, stop_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._stop_seconds = stop_seconds
        self._leave_by: float | None = None
        self._is_over = threading.Event()
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    def signalled(self) -> None:
        """Begin the countdown; the second signal leaves no grace."""
        now = monotonic()
        if self._leave_by is None:
            self._leave_by = now + self._grace_seconds + self._stop_seconds
        else:
            self._leave_by = min(self._leave_by, now + self._stop_seconds)

    def close(self) -> None:
        """Call it off: the worker has ended."""
        self._is_over.set()

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            if self._leave_by is not None and monotonic() > self._leave_by:
                logger.error("the worker did not stop in time: a handler blocks it; the program exits")
                logging.shutdown()
                os._exit(1)
