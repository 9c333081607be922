"""As fast when there is more to choose from: other types, other times, other priorities."""

from __future__ import annotations

from collections.abc import Iterator

from scenarios.figures import Figure, Target, in_turns, rates, ratio
from scenarios.ground import Ground
from scenarios.loads import NOOP, Load

LEAST = Target(least=0.8)
OTHER_PREFIX = Load(type="other.noop.v1")
TOMORROW = Load(priority=10, delay_seconds=86_400)
ONE_TYPE = Load(type="bench.many.0.v1")
PRIORITIES = 1_000


def pending(ground: Ground) -> Iterator[Figure]:
    """Drain beside pending runs of another prefix, ÷ without them."""
    yield from _beside(ground, OTHER_PREFIX, f"{ground.sizes.others:,} pending of another prefix")


def tomorrow(ground: Ground) -> Iterator[Figure]:
    """Drain beside runs of the same type and better priority that are due tomorrow, ÷ without them."""
    yield from _beside(ground, TOMORROW, f"{ground.sizes.others:,} of better priority due tomorrow")


def _beside(ground: Ground, others: Load, name: str) -> Iterator[Figure]:
    with ground.place() as empty, ground.place() as full:
        others.submit(full.conn, ground.sizes.others)
        empty.settle()
        full.settle()
        cases = {"full": lambda: full.drain(NOOP), "empty": lambda: empty.drain(NOOP)}
        values = in_turns(ground.sizes.rounds, cases)
    yield ratio(f"{name} ÷ empty", values["full"], values["empty"], LEAST)
    yield rates(name, values["full"])
    yield rates("empty", values["empty"])


def types20(ground: Ground) -> Iterator[Figure]:
    """Drain 20 types by one prefix, ÷ one type."""
    yield from _spread(ground, Load(type="bench.many.#.v1", types=20), "20 types", "one type")


def types200(ground: Ground) -> Iterator[Figure]:
    """Drain 200 types by one prefix, ÷ one type."""
    yield from _spread(ground, Load(type="bench.many.#.v1", types=200), "200 types", "one type")


def priorities(ground: Ground) -> Iterator[Figure]:
    """Drain one type in 1,000 priorities, ÷ one priority."""
    load = Load(type=ONE_TYPE.type, priorities=PRIORITIES)
    yield from _spread(ground, load, f"{PRIORITIES:,} priorities of one type", "one priority")


def _spread(ground: Ground, load: Load, name: str, plain: str) -> Iterator[Figure]:
    # Nothing is left behind by a drain but finished runs: both cases may have one database.
    with ground.place(target="growth_workers:many", load=ONE_TYPE) as place:
        place.settle()
        cases = {"spread": lambda: place.drain(load), "plain": lambda: place.drain(ONE_TYPE)}
        values = in_turns(ground.sizes.rounds, cases)
    yield ratio(f"{name} ÷ {plain}", values["spread"], values["plain"], LEAST)
    yield rates(name, values["spread"])
    yield rates(plain, values["plain"])
