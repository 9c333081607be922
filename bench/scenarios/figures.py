"""What a scenario yields, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What a median is to be: ``least`` or ``most``."""

    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    def is_met(self, value: float) -> bool:
        """Return whether a value is on the right side."""
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured, a value for each round, and what issue 4 asks of their median."""

    name: str
    unit: str
    values: Sequence[float]
    target: Target | None = None

    @property
    def median(self) -> float:
        """The value in the middle."""
        return statistics.median(self.values)

    def verdict(self) -> str:
        """Return whether the target is met, in words; nothing where there is none."""
        if self.target is None:
            return ""
        return "met" if self.target.is_met(self.median) else "MISSED"

    def document(self, scenario: str) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "scenario": scenario,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "values": list(self.values),
            "target": None if self.target is None else str(self.target),
            "is_met": None if self.target is None else self.target.is_met(self.median),
        }


def in_turns(rounds: int, cases: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each case once a round, every other round backwards; return their values."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in cases if number % 2 == 0 else reversed(list(cases)):
            values[name].append(cases[name]())
    return values


def ratio(name: str, above: Sequence[float], below: Sequence[float], target: Target | None = None) -> Figure:
    """Return the ratio of two figures, taken round by round."""
    return Figure(name, "ratio", [a / b for a, b in zip(above, below, strict=True)], target)


def rates(name: str, values: Sequence[float]) -> Figure:
    """Return the runs a second that a ratio is made of."""
    return Figure(name, "runs/s", values)


HEAD = f"{'scenario':<11} {'measured':<64} {'median':>11}  {'lowest to highest':<21} {'target':<9}"


def line(scenario: str, figure: Figure) -> str:
    """Return a figure as a line of the table."""
    values = [figure.median, min(figure.values), max(figure.values)]
    median, low, high = (_number(value, figure.unit) for value in values)
    name = f"{figure.name}, {figure.unit}" if figure.unit != "ratio" else figure.name
    target = "" if figure.target is None else str(figure.target)
    spread = f"{low} to {high}" if len(figure.values) > 1 else ""
    return f"{scenario:<11} {name:<64} {median:>11}  {spread:<21} {target:<9} {figure.verdict()}".rstrip()


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit in ("runs/s", "inserts/s", "runs", "B") else f"{value:,.2f}"
