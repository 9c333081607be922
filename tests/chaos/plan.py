"""Which fault at which second meets which target: all of it follows from the seed, before anything runs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LEASE_SECONDS = 3.0

# How often a kind comes in one round of all kinds, and how long it lasts.
KINDS: dict[str, tuple[int, float, float]] = {
    # processes
    "kill a worker process": (3, 0, 0),
    "kill a supervisor": (2, 0, 0),
    "kill a worker's own program": (1, 0, 0),
    "kill a heart": (1, 0, 0),
    "kill a producer": (2, 0, 0),
    "stop a worker process past its lease": (2, LEASE_SECONDS + 1, LEASE_SECONDS + 4),
    "stop a whole service past its lease": (1, LEASE_SECONDS + 1, LEASE_SECONDS + 4),
    "stop a supervisor past its lease": (1, LEASE_SECONDS + 1, LEASE_SECONDS + 4),
    "restart a service": (2, 0, 0),
    # the server
    "terminate sessions": (3, 0, 0),
    "cancel statements": (2, 0, 0),
    "restart the server fast": (1, 0, 0),
    "stop the server at once": (1, 0, 2),
    "kill a backend": (1, 0, 0),
    "kill the postmaster": (1, 0, 1),
    # the tables
    "lock workflow_run": (1, 1, 2 * LEASE_SECONDS),
    "hold a snapshot": (1, 3, 10),
    "vacuum full": (1, 0, 0),
    "migrate again": (1, 0, 0),
    "prune": (1, 0, 0),
    "disable a type": (1, 1, 5),
    # the network between one party and the server
    "black-hole a party": (2, 1, 3 * LEASE_SECONDS),
    "reset a party's connections": (2, 0, 0),
    "delay a party": (1, 2, 6),
    "half-open a party's connections": (1, 1, 2 * LEASE_SECONDS),
    "swallow an answer": (3, 0, 2),
    # clocks
    "shift a service's clock": (1, 2, 10),
}
PAUSE_SECONDS = (0.5, 2.5)


@dataclass(frozen=True, slots=True)
class Fault:
    """``target`` is an index: whom it meets is this modulo the number of those who are there."""

    at: float
    kind: str
    target: int
    seconds: float

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:6.1f} s  {self.kind} [{self.target}]{lasting}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All faults of one run; ``seconds`` is how long they may come."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]

    def to_json(self) -> str:
        """Return the plan as a file holds it."""
        lines = ",\n  ".join(json.dumps(asdict(fault)) for fault in self.faults)
        return f'{{"seed": {self.seed}, "seconds": {self.seconds}, "faults": [\n  {lines}\n]}}\n'

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}, {self.seconds:g} s", *map(str, self.faults)])


def make_plan(seed: int, seconds: float) -> Plan:
    """Return the plan of a seed: every kind comes once in each round, in an order of its own."""
    chance = random.Random(f"plan {seed}")
    kinds = _rounds(chance)
    faults = []
    at = chance.uniform(*PAUSE_SECONDS)
    while at < seconds - 1:
        kind = next(kinds)
        _, least, most = KINDS[kind]
        lasting = min(chance.uniform(least, most), seconds - at)
        faults.append(Fault(round(at, 2), kind, chance.randrange(1000), round(lasting, 2)))
        at += chance.uniform(*PAUSE_SECONDS)
    return Plan(seed, seconds, tuple(faults))


def read_plan(path: Path) -> Plan:
    """Return the plan that a file holds."""
    stored = json.loads(path.read_text())
    return Plan(stored["seed"], stored["seconds"], tuple(Fault(**fault) for fault in stored["faults"]))


def _rounds(chance: random.Random) -> Iterator[str]:
    while True:
        kinds = [kind for kind, (times, _, _) in KINDS.items() for _ in range(times)]
        chance.shuffle(kinds)
        yield from kinds
