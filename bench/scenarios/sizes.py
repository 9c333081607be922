"""How much of everything: full size unless an option says otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self


def _size(full: float, quick: float, says: str) -> Any:
    return field(default=full, metadata={"quick": quick, "help": says})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of all scenarios; each is an option of the command line."""

    rounds: int = _size(5, 2, "times that every ratio is measured")
    runs: int = _size(60_000, 8_000, "runs of one drain, at most 100,000")
    others: int = _size(1_000_000, 50_000, "pending runs that are not to be claimed (pending, tomorrow)")
    finished: int = _size(10_000_000, 200_000, "finished runs in the table (finished)")
    flow: int = _size(200_000, 20_000, "runs that flow under a held snapshot (snapshot)")
    memory_runs: int = _size(1_000_000, 20_000, "runs over which a worker's memory is watched (memory)")
    warm_up_runs: int = _size(50_000, 10_000, "runs before that (memory)")
    submit_runs: int = _size(100_000, 100_000, "runs of one submit_many (memory)")
    idle_seconds: float = _size(20.0, 6.0, "how long idle workers are watched (idle)")
    settle_seconds: float = _size(5.0, 3.0, "how long they come to rest before (idle)")
    producer_seconds: float = _size(4.0, 1.0, "how long producers insert (producers)")
    backlog: int = _size(200_000, 30_000, "runs that keep the worker busy meanwhile (producers)")
    beside: int = _size(12, 2, "times that a drain is watched beside dashboards, and a stream (operate)")
    beside_seconds: float = _size(5.0, 1.0, "how long each time (operate)")
    minutes: float = _size(10.0, 0.5, "how long a steady load lasts (steady)")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Make an option of each size."""
        for one in fields(cls):
            says = f"{one.metadata['help']}; {one.default:,}, quick {one.metadata['quick']:,}"
            kind = float if isinstance(one.default, float) else int
            parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, metavar="N", help=says)

    @classmethod
    def read(cls, options: Mapping[str, Any], *, is_quick: bool) -> Self:
        """Return the sizes that the options name, the defaults for the rest.

        Raises:
            ValueError: a size is out of its range.
        """
        names = [one.name for one in fields(cls)]
        quick = {one.name: one.metadata["quick"] for one in fields(cls)} if is_quick else {}
        given = {name: options[name] for name in names if options[name] is not None}
        for name, value in given.items():
            if value <= 0:
                raise ValueError(f"--{name.replace('_', '-')}: expected more than 0, got {value}")
        sizes = replace(cls(), **(quick | given))
        if sizes.runs > 100_000:
            raise ValueError(f"--runs: expected at most 100,000, got {sizes.runs:,}")
        return sizes
