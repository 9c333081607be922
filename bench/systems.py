"""What is measured: each system is one file of facts beside the program that speaks to it, in bench/peers.

A program is started as ``setup URL``, ``producer URL`` or ``worker URL`` in an environment of its own; this side
knows no language.  A producer reads lines: ``submit N`` (one by one), ``bulk N``, ``tagged N`` (in bulk, and each
start leaves a line) and ``one I``; it answers each with a number of seconds: how long it took, or for ``one`` the
moment before the submit.  A worker works until SIGTERM.  For a job with a tag it appends ``tag seconds pid`` to
the file that BENCH_STARTS names.  All moments are CLOCK_MONOTONIC.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
# The order of the tables, and of a quick round that may run out of time: those that targets are set against first.
ORDER = (
    "ours",
    "ours-batch",
    "floor",
    "pgqueuer",
    "pg-boss",
    "graphile-worker",
    "plain",
    "bare",
    "floor-one",
)


class NotMeasuredError(Exception):
    """Why a system has no figures; one line."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One file of facts; ``busy`` and ``done`` are the system's own words for what is left and what is finished."""

    name: str
    title: str
    program: str
    environment: str = "own"  # own, python, node or go
    packages: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    busy: str = ""  # SQL: whether jobs are waiting or running; without it there is no worker to measure
    done: str = ""  # SQL: how many jobs have ended well; where it keeps no count, that none is left must do
    is_timed: bool = True  # whether its worker is woken, so that its latency means something
    starts_processes: bool = False  # one worker program starts BENCH_PROCESSES processes itself
    keeps: str = ""
    configuration: tuple[str, ...] = ()
    source: str = ""


def systems(only: list[str]) -> list[System]:
    """Return the systems asked for, all of them where none is named.

    Raises:
        NotMeasuredError: a name is unknown.
    """
    known = {path.stem: path for path in PEERS.glob("*.toml")}
    names = sorted(known, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    if unknown := set(only) - set(known):
        raise NotMeasuredError(f"expected names of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    return [_read(known[name]) for name in names if not only or name in only]


def _read(path: Path) -> System:
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    facts: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in told.items()
    }
    return System(name=path.stem, **facts)
