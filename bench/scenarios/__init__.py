"""What grows, one function for each: it yields figures, ratios of what was measured in turns on one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scenarios.backlogs import pending, priorities, tomorrow, types20, types200
from scenarios.figures import Figure
from scenarios.ground import Ground
from scenarios.handling import handlers
from scenarios.history import finished
from scenarios.operating import operate
from scenarios.producing import producers
from scenarios.resources import idle, memory
from scenarios.snapshots import snapshot
from scenarios.steadiness import steady_load

SCENARIOS: dict[str, Callable[[Ground], Iterator[Figure]]] = {
    "pending": pending,
    "tomorrow": tomorrow,
    "types20": types20,
    "types200": types200,
    "priorities": priorities,
    "snapshot": snapshot,
    "finished": finished,
    "operate": operate,
    "idle": idle,
    "memory": memory,
    "producers": producers,
    "handlers": handlers,
    "steady": steady_load,
}
# Only when named: ten minutes.
LONG = {"steady"}
GROUPS = {"types": ["types20", "types200"]}
