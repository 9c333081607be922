"""The result as a page of the documentation, with its chart beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from measures import MEASURES, NOTHING, rounds_of, shown

HEADS = (
    "submit one by one /s | in bulk /s | drain, 1 worker /s | 2 workers /s | idle latency p50 / p99, ms"
    " | WAL, B a run | CPU s per 10,000: worker + server | memory after 1 / 2 drains, MB | keeps"
)
COLUMNS = 9
UNSTEADY = 3  # with rounds so many times apart a median tells little
CHART_TITLE = "no-op runs drained by one worker process, a second"


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the page, and the chart with the same name and the ending svg."""
    chart = path.with_suffix(".svg")
    path.write_text(_page(result, chart.name), encoding="utf-8")
    chart.write_text(_chart(result), encoding="utf-8")


def _page(result: dict[str, Any], chart: str) -> str:
    measured, machine = result["measured"], result["machine"]
    server = machine["postgresql"]
    settings = ", ".join(f"`{name}` {value}" for name, value in server.items() if name != "server_version")
    parts = [
        "# Benchmark",
        (
            f"Measured on {measured['date']} by `{measured['command']}`, {rounds_of(result)} in turns, on"
            f" {machine['cores']} cores and {machine['memory_gb']} GB ({machine['system']}), which workers and server"
            f" share; PostgreSQL {server['server_version']} with {settings}; Python {machine['python']}. Read the"
            " figures as ratios: they are of one machine, and of no-op jobs."
        ),
        f"![{CHART_TITLE}]({chart})",
        "## Figures",
        (
            "Medians of the rounds, in brackets the lowest and the highest. Where these are more than"
            f" {UNSTEADY}-fold apart the figure is called unsteady: take it for no verdict on that system."
        ),
        "\n".join([f"| system | {HEADS} |", "|---" * (COLUMNS + 1) + "|", *_rows(result)]),
        "## Ours against each",
        (
            "How many times as good simple-workflow is: of rates ours ÷ theirs, of latency, WAL, CPU and memory theirs"
            " ÷ ours. Above 1 ours is better."
        ),
        _ratios(result),
        *_profile(result),
        "## How it is measured",
        _method(),
        "## Configurations",
        (
            "Each system as its own documentation recommends for throughput, and where that names no figure, with one"
            " that served it well here; the jobs do nothing."
        ),
        _configurations(result),
    ]
    if result["not_measured"]:
        parts += [
            "## Not measured",
            *(f"- {_title(result, name)}: {why}" for name, why in result["not_measured"].items()),
        ]
    return "\n\n".join(parts) + "\n"


def _rows(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, one in result["systems"].items():
        figures = one["figures"]
        cells = [
            *(_cell(figures, key, 0) for key in ("submit", "bulk", "drain_one", "drain_two")),
            _pair(figures, "latency_p50", "latency_p99", 1, " / "),
            _cell(figures, "wal", 0),
            _pair(figures, "cpu_worker", "cpu_server", 2, " + "),
            _pair(figures, "memory_first", "memory_second", 0, " / "),
            result["described"][name]["keeps"],
        ]
        rows.append(f"| {_title(result, name)} | {' | '.join(cells)} |")
    return rows


def _cell(figures: dict[str, Any], key: str, digits: int) -> str:
    figure = figures.get(key)
    if not figure:
        return NOTHING
    middle, lowest, highest = (shown(figure[name], digits) for name in ("median", "lowest", "highest"))
    if lowest == highest:
        return middle
    unsteady = ", unsteady" if figure["highest"] > UNSTEADY * figure["lowest"] else ""
    return f"{middle} ({lowest} to {highest}{unsteady})"


def _pair(figures: dict[str, Any], first: str, second: str, digits: int, between: str) -> str:
    values = [shown(figures[key]["median"], digits) if key in figures else NOTHING for key in (first, second)]
    return between.join(values) if set(values) != {NOTHING} else NOTHING


def _ratios(result: dict[str, Any]) -> str:
    titles = " | ".join(measure.title for measure in MEASURES)
    lines = [f"| ours against | {titles} |", "|---" * (len(MEASURES) + 1) + "|"]
    for name, one in result["systems"].items():
        if name != "ours":
            cells = " | ".join(shown(one["ours_is_better_by"].get(measure.key), 2) for measure in MEASURES)
            lines.append(f"| {_title(result, name)} | {cells} |")
    return "\n".join(lines)


def _profile(result: dict[str, Any]) -> list[str]:
    """Return where the CPU time of a run goes: what the bare functions' client needs is the driver's part."""
    systems = result["systems"]
    if not {"ours", "floor"} <= set(systems):
        return []
    ours, floor = systems["ours"]["figures"], systems["floor"]["figures"]
    if not all(key in figures for figures in (ours, floor) for key in ("cpu_worker", "cpu_server")):
        return []
    database, worker = (100 * ours[key]["median"] for key in ("cpu_server", "cpu_worker"))
    driver = min(worker, 100 * floor["cpu_worker"]["median"])
    return [
        "## Where the time of a run goes",
        (
            "CPU microseconds for each run of a drain by one worker. The driver's part is what the client of the bare"
            " functions needs, which does nothing else."
        ),
        (
            "| database | driver | worker |\n|---|---|---|\n"
            f"| {shown(database, 1)} | {shown(driver, 1)} | {shown(worker - driver, 1)} |"
        ),
    ]


def _method() -> str:
    return (
        "Each round measures every system once, beginning with another one each time, in a database of its own on"
        " the one server. Submits are timed by the producer, in the system's own language, on a connection that is"
        " already open; all producers take turns at it twenty times a round, since each waits for the disk, which is"
        " faster in some seconds than in others. Workers are warmed up first. For a drain they are then held with"
        " SIGSTOP while the jobs are recorded, so that it contains neither their start nor the recording: it is timed"
        " from the SIGCONT to the probe that finds nothing waiting or running, and the system's own count of what it"
        " finished must agree. Latency is from the call of submit to the first line of the handler, one job at a time"
        " into an idle worker. WAL is what the server wrote for the submit and the drain, after a checkpoint, ÷ runs."
        " CPU is user and system time of the worker's and of the server's processes during the drain. Memory is that"
        " of all the worker's processes, shared pages counted by their share."
    )


def _configurations(result: dict[str, Any]) -> str:
    lines = []
    for name in result["systems"]:
        facts = result["described"][name]
        runs = result["measured"]["runs_a_drain"].get(name)
        told = "; ".join(facts["configuration"])
        size = f" {runs:,} runs a drain." if runs else ""
        lines.append(f"- **{facts['title']}**: {told}.{size} Source: {_source(facts['source'])}")
    return "\n".join(lines)


def _source(source: str) -> str:
    return f"<{source}>" if source.startswith("http") else f"`{source}`"


def _title(result: dict[str, Any], name: str) -> str:
    return str(result["described"][name]["title"])


def _chart(result: dict[str, Any]) -> str:
    """Return bars for the drain by one worker, the fastest first."""
    rates = {
        name: one["figures"]["drain_one"]["median"]
        for name, one in result["systems"].items()
        if "drain_one" in one["figures"]
    }
    ordered = sorted(rates.items(), key=lambda item: -item[1])
    most = max(rates.values(), default=1.0)
    height = 40 + 24 * len(ordered)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="720" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" font-weight="bold">{CHART_TITLE}</text>',
    ]
    for number, (name, rate) in enumerate(ordered):
        y, width = 36 + 24 * number, max(1.0, 400 * rate / most)
        colour = "#1a6e5a" if name == "ours" else "#9aa7b0"
        lines += [
            f'<text x="200" y="{y + 13}" text-anchor="end">{escape(_title(result, name))}</text>',
            f'<rect x="208" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>',
            f'<text x="{214 + width:.1f}" y="{y + 13}">{rate:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
