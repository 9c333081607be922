"""Failpoints: named places where a test lets a worker's process die or stop.  For tests only.

``SIMPLEWORKFLOW_FAILPOINTS="claimed=kill,executed@3=pause:2"`` names points, after ``@`` at which of its hits a
process shall act (else at each), and what happens there: ``kill`` (SIGKILL to itself), ``stop`` (SIGSTOP),
``exit:CODE``, ``pause:SECONDS`` (whoever is there waits, a loop with all its handlers), ``raise``.  Without the
variable a point is a call that does nothing.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections import Counter
from typing import NamedTuple

from simpleworkflow.errors import InvalidInput
from simpleworkflow.settings import failpoints_text

__all__ = ["POINTS", "Failpoint", "hit", "parse"]

logger = logging.getLogger("simpleworkflow.failpoints")

POINTS = {
    "starting": "in a child, after its module was imported, before it is under its supervisor's eyes",
    "claimed": "after the commit of an exchange that claimed runs, before any of their handlers",
    "executed": "after a handler's effect, before its run is finished",
    "finishing": "before an exchange that finishes runs is sent",
    "finished": "after its commit",
    "beating": "in the heart, before a beat is sent",
    "beaten": "in the heart, after its commit, before the worker can know of it",
    "expiring": "in a supervisor, after a child has died, before its runs are taken",
}
_FAILPOINT = re.compile(r"([a-z]+)(?:@(\d+))?=(kill|stop|exit|pause|raise)(?::([0-9.]+))?")


class Failpoint(NamedTuple):
    """What happens at a point: at one of its hits, or at each (0)."""

    at: int
    action: str
    value: float


def parse(text: str) -> dict[str, Failpoint]:
    """Return the failpoints that the variable's text names.

    Raises:
        InvalidInput: a name or an action that does not exist.
    """
    armed = {}
    for one in filter(None, text.split(",")):
        match = _FAILPOINT.fullmatch(one.strip())
        if match is None or match[1] not in POINTS:
            raise InvalidInput(
                f"SIMPLEWORKFLOW_FAILPOINTS: expected POINT[@N]=ACTION[:NUMBER] with a point of "
                f"{', '.join(POINTS)}, got {one[:60]!a}"
            )
        armed[match[1]] = Failpoint(int(match[2] or 0), match[3], float(match[4] or 0))
    return armed


_armed = parse(failpoints_text())
_hits: Counter[str] = Counter()


def hit(point: str, count: int = 1) -> None:
    """Do what the variable orders for this point; ``count`` 0: there was nothing that could be hit."""
    if _armed and count and (failpoint := _armed.get(point)):
        _hits[point] += 1
        if failpoint.at in (0, _hits[point]):
            _act(point, failpoint)


def _act(point: str, failpoint: Failpoint) -> None:
    logger.warning("failpoint %s: %s", point, failpoint.action)
    match failpoint.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(int(failpoint.value))
        case "pause":
            time.sleep(failpoint.value)
        case _:
            raise RuntimeError(f"failpoint {point}")
