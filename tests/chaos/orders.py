"""What producers ask for: types and payloads, each with how it must end if nobody cancels it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# An innocent run meets many faults in one chaos; what fails by itself has few attempts.
ATTEMPTS = 30
FAILING_ATTEMPTS = 3
PRUNED = "gone"


@dataclass(frozen=True, slots=True)
class Order:
    """One run to submit.  ``mark`` stands in its payload: by it the row is found whatever the producer was told."""

    type: str
    payload: dict[str, Any]
    max_attempts: int = ATTEMPTS
    delay: float = 0.0
    key: str | None = None

    @property
    def mark(self) -> str:
        return str(self.payload["mark"])


def an_order(chance: random.Random, mark: str, *, key: str | None = None) -> Order:
    """Return what to submit next."""
    (make,) = chance.choices([make for make, _ in _MENU], [weight for _, weight in _MENU])
    type_, values, max_attempts = make(chance)
    if type_ == PRUNED:  # its key would be free again
        key = None
    payload = {"mark": key or mark, "expect": "succeeded"} | values
    delay = chance.uniform(0, 3) if chance.random() < 0.05 else 0.0
    return Order(f"chaos.{type_}.v1", payload, max_attempts, round(delay, 3), key)


Made = tuple[str, dict[str, Any], int]


def _short(chance: random.Random) -> Made:
    return "short", {"ms": chance.randint(0, 20)}, ATTEMPTS


def _gone(chance: random.Random) -> Made:
    return PRUNED, {"ms": 1}, ATTEMPTS


def _some(chance: random.Random) -> Made:
    return "some", {"ms": chance.randint(100, 600)}, ATTEMPTS


def _long(chance: random.Random) -> Made:
    return "long", {"ms": chance.randint(1500, 4500)}, ATTEMPTS


def _thread(chance: random.Random) -> Made:
    return "thread", {"ms": chance.randint(20, 250)}, ATTEMPTS


def _cpu(chance: random.Random) -> Made:
    return "cpu", {"ms": chance.randint(5, 30)}, ATTEMPTS


def _block(chance: random.Random) -> Made:
    return "block", {"ms": chance.randint(200, 900)}, ATTEMPTS


def _beat(chance: random.Random) -> Made:
    return "beat", {"ms": chance.randint(100, 900)}, ATTEMPTS


def _big(chance: random.Random) -> Made:
    if chance.random() < 0.1:
        return "big", {"bytes": 1_100_000, "expect": "failed"}, FAILING_ATTEMPTS
    return "big", {"bytes": chance.randint(50_000, 400_000)}, ATTEMPTS


def _retry(chance: random.Random) -> Made:
    if chance.random() < 0.2:
        return "retry", {"fails": 1000, "expect": "failed"}, FAILING_ATTEMPTS
    return "retry", {"fails": chance.randint(1, 3)}, ATTEMPTS


def _late(chance: random.Random) -> Made:
    if chance.random() < 0.2:
        return "late", {"late": 1000, "expect": "failed"}, FAILING_ATTEMPTS
    return "late", {"late": chance.randint(0, 2)}, ATTEMPTS


def _late_cpu(chance: random.Random) -> Made:
    return "latecpu", {"late": chance.randint(0, 1)}, ATTEMPTS


def _crash(chance: random.Random) -> Made:
    how = chance.choice(["segfault", "0", "1", "77"])
    if chance.random() < 0.2:
        return "crash", {"crashes": 1000, "how": how, "expect": "failed"}, FAILING_ATTEMPTS
    return "crash", {"crashes": 1, "how": how}, ATTEMPTS


_MENU: list[tuple[Callable[[random.Random], Made], float]] = [
    (_short, 600),
    (_gone, 40),
    (_some, 120),
    (_long, 20),
    (_thread, 100),
    (_cpu, 10),
    (_block, 1),
    (_beat, 15),
    (_big, 8),
    (_retry, 40),
    (_late, 20),
    (_late_cpu, 1),
    (_crash, 0.3),
]

# What PostgreSQL accepts and Python cannot decode; as text, with room for the mark.
HOSTILE = (
    '{{"mark": "{mark}", "expect": "failed", "n": 1e5000}}',
    '{{"mark": "{mark}", "expect": "failed", "n": -1e-5000, "m": 1e9999}}',
    '{{"mark": "{mark}", "expect": "failed", "n": ' + "[" * 3000 + "]" * 3000 + "}}",
)
