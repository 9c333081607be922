"""Handlers that are not on the loop: in threads, and in processes."""

from __future__ import annotations

from collections.abc import Iterator

from scenarios.figures import Figure, Target, in_turns, ratio
from scenarios.ground import Ground
from scenarios.loads import NOOP, Load

IN_THREADS = Load(type="bench.thread.v1")
IN_PROCESSES = Load(type="bench.cpu.v1")


def handlers(ground: Ground) -> Iterator[Figure]:
    """Drain with sync handlers and with cpu handlers, and ÷ with async ones."""
    with (
        ground.place() as loop,
        ground.place(target="growth_workers:threads", load=IN_THREADS) as threads,
        ground.place(target="growth_workers:cpu", load=IN_PROCESSES) as processes,
    ):
        cases = {
            "async": lambda: loop.drain(NOOP),
            "threads": lambda: threads.drain(IN_THREADS),
            "cpu": lambda: processes.drain(IN_PROCESSES),
        }
        values = in_turns(ground.sizes.rounds, cases)
    yield Figure("async handlers", "runs/s", values["async"])
    yield Figure("sync handlers in threads", "runs/s", values["threads"], Target(least=10_000))
    yield Figure("cpu=True handlers in processes", "runs/s", values["cpu"], Target(least=3_000))
    yield ratio("sync ÷ async", values["threads"], values["async"])
    yield ratio("cpu=True ÷ async", values["cpu"], values["async"])
