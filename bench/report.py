"""The result as a table on the terminal."""

from __future__ import annotations

from typing import Any

from measures import MEASURES, NOTHING, Measure, rounds_of, shown

SHORT = {
    "submit": "submit/s",
    "bulk": "bulk/s",
    "drain_one": "1 worker/s",
    "drain_two": "2 workers/s",
    "latency_p50": "p50 ms",
    "latency_p99": "p99 ms",
    "wal": "WAL B",
    "cpu_worker": "CPU wrk",
    "cpu_server": "CPU srv",
    "memory_first": "MB 1st",
    "memory_second": "MB 2nd",
}
WIDTH = 26
CELL = 14


def table(result: dict[str, Any]) -> str:
    """Return the figures, their spread, ours against each, and what was not measured and why."""
    head = f"{'':{WIDTH}}" + "".join(f"{SHORT[one.key]:>{CELL}}" for one in MEASURES)
    lines = [
        f"{rounds_of(result)}; median of the rounds, CPU in seconds per 10,000 runs",
        *_warnings(result),
        "",
        head,
        *(_row(_title(result, name), one, _middle) for name, one in result["systems"].items()),
        "",
        "lowest to highest",
        head,
        *(_row(_title(result, name), one, _spread) for name, one in result["systems"].items()),
    ]
    others = {name: one for name, one in result["systems"].items() if name != "ours"}
    if "ours" in result["systems"] and others:
        lines += ["", "how many times as good ours is", head]
        lines += [_row(_title(result, name), one, _ratio) for name, one in others.items()]
    lines += [
        "",
        *(f"{_title(result, name)}: not measured: {why}" for name, why in result["not_measured"].items()),
    ]
    return "\n".join(lines).rstrip()


def _warnings(result: dict[str, Any]) -> list[str]:
    server = result["machine"]["postgresql"]
    off = [name for name in ("fsync", "synchronous_commit", "full_page_writes") if server.get(name) != "on"]
    return [f"NOT DURABLE: {', '.join(off)} is not on; compare these figures with nothing"] if off else []


def _title(result: dict[str, Any], name: str) -> str:
    return str(result["described"][name]["title"])


def _row(title: str, one: dict[str, Any], cell: Any) -> str:
    return f"{title:{WIDTH}}" + "".join(f"{cell(measure, one):>{CELL}}" for measure in MEASURES)


def _middle(measure: Measure, one: dict[str, Any]) -> str:
    figure = one["figures"].get(measure.key)
    return shown(figure and figure["median"], measure.digits)


def _spread(measure: Measure, one: dict[str, Any]) -> str:
    figure = one["figures"].get(measure.key)
    if not figure:
        return NOTHING
    return f"{_brief(figure['lowest'], measure.digits)}-{_brief(figure['highest'], measure.digits)}"


def _brief(value: float, digits: int) -> str:
    return f"{value / 1000:.1f}k" if value >= 10_000 else f"{value:.{digits}f}"


def _ratio(measure: Measure, one: dict[str, Any]) -> str:
    return shown(one["ours_is_better_by"].get(measure.key), 2)
