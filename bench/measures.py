"""What is measured of a system, and how samples become the figures that are shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "–"  # noqa: RUF001 - not measured


@dataclass(frozen=True)
class Measure:
    """One column: of which samples, how they are shown, and whether more is better."""

    key: str
    title: str
    samples: str
    digits: int = 0
    is_rate: bool = False
    percentile: float | None = None


MEASURES = (
    Measure("submit", "submit one by one /s", "submit", is_rate=True),
    Measure("bulk", "submit in bulk /s", "bulk", is_rate=True),
    Measure("drain_one", "drain, 1 worker /s", "drain_one", is_rate=True),
    Measure("drain_two", "drain, 2 workers /s", "drain_two", is_rate=True),
    Measure("latency_p50", "idle latency p50, ms", "latency", 1, percentile=0.50),
    Measure("latency_p99", "p99, ms", "latency", 1, percentile=0.99),
    Measure("wal", "WAL, bytes a run", "wal"),
    Measure("cpu_worker", "CPU s per 10k: worker", "cpu_worker", 2),
    Measure("cpu_server", "server", "cpu_server", 2),
    Measure("memory_first", "worker memory after 1 drain, MB", "memory_first"),
    Measure("memory_second", "after 2, MB", "memory_second"),
)


@dataclass(frozen=True)
class Figure:
    """What the rounds said of one measure."""

    middle: float
    lowest: float
    highest: float
    count: int

    def as_json(self) -> dict[str, float]:
        """Return it for programs."""
        return {"median": self.middle, "lowest": self.lowest, "highest": self.highest, "samples": self.count}


def summary(rounds: Sequence[dict[str, list[float]]]) -> dict[str, Figure]:
    """Return the figures of a system from what each round found: the median of the rounds, with their spread."""
    found: dict[str, Figure] = {}
    for measure in MEASURES:
        values = [_of_round(measure, one[measure.samples]) for one in rounds if one.get(measure.samples)]
        if values:
            count = sum(len(one.get(measure.samples, ())) for one in rounds)
            found[measure.key] = Figure(statistics.median(values), min(values), max(values), count)
    return found


def _of_round(measure: Measure, samples: Sequence[float]) -> float:
    if measure.percentile is None:
        return statistics.median(samples)
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(measure.percentile * len(ordered)) - 1)]


def ratio(measure: Measure, ours: Figure | None, other: Figure | None) -> float | None:
    """Return how many times as good ours is: of rates ours ÷ theirs, of costs theirs ÷ ours."""
    if ours is None or other is None or not ours.middle or not other.middle:
        return None
    return ours.middle / other.middle if measure.is_rate else other.middle / ours.middle


def shown(value: float | None, digits: int = 0) -> str:
    """Return a number as people read it."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def rounds_of(result: dict[str, Any]) -> str:
    """Return how many rounds there were, in words."""
    count = result["measured"]["rounds"]
    return f"{count} round{'s' if count != 1 else ''}"


def as_json(summaries: dict[str, dict[str, Figure]]) -> dict[str, Any]:
    """Return the figures and ours against each of them, for programs."""
    ours = summaries.get("ours", {})
    return {
        name: {
            "figures": {key: figure.as_json() for key, figure in figures.items()},
            "ours_is_better_by": {
                measure.key: ratio(measure, ours.get(measure.key), figures.get(measure.key))
                for measure in MEASURES
                if measure.key in ours and measure.key in figures
            },
        }
        for name, figures in summaries.items()
    }
