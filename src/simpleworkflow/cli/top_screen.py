"""What ``wf top`` shows: a picture of what was seen last, drawn to fit the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.console import Group
from rich.text import Text

from simpleworkflow.cli.text import age, one_line, safe, shortened, span
from simpleworkflow.model import Run, Stats, TypeSummary
from simpleworkflow.operation import Operation

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Picture", "Row", "Seen", "render"]

TABLES = ("types", "running", "failed")
KEYS = "Tab table  ↑↓ row  / filter  c cancel  r reopen  p pause  q quit"
# Lines around the tables: three above, one below; a title and a heading for each of them.
_FRAME, _HEADS = 4, 2
# From here on there is room for whole ids.
_WIDE = 120
_COUNTED = ("pending", "leased", "waiting", "failed")
_RATED = ("submitted", "claimed", "succeeded", "failed", "retried")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the database has shown."""

    stats: Stats
    types: Sequence[TypeSummary]
    running: Sequence[Run]
    failed: Sequence[Run]
    operations: Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what identifies it, and its cells; ``is_paused`` is the pattern that pauses its type."""

    type: str
    cells: Sequence[str]
    run_id: UUID | None = None
    is_paused: str = ""
    style: str = ""

    @property
    def key(self) -> object:
        """What it is the row of, whatever it says now."""
        return self.run_id or self.type


@dataclass
class Picture:
    """What was seen last, and what is selected in it."""

    where: str
    pattern: str
    seen: Seen
    table: str = "types"
    keys: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    trouble: str = ""

    def show(self, seen: Seen) -> None:
        """Show what was seen now; selected rows stay selected, wherever they have gone."""
        self.seen = seen
        self.trouble = ""

    def say(self, what: str) -> None:
        """Say something in the last line, instead of the keys."""
        self.said = what

    def rows(self, table: str) -> list[Row]:
        """Return the lines of a table."""
        match table:
            case "types":
                return [_type_row(one) for one in sorted(self.seen.types, key=_busiest_first)]
            case "running":
                return [_running_row(one) for one in self.seen.running]
            case _:
                return [_failed_row(one) for one in self.seen.failed]

    def position(self, table: str) -> int:
        """Return which line of a table is selected, 0 where the one that was is gone."""
        rows = self.rows(table)
        return next((n for n, row in enumerate(rows) if row.key == self.keys.get(table)), 0)

    def selected(self) -> Row | None:
        """Return the selected line of the present table, if it has any."""
        rows = self.rows(self.table)
        return rows[self.position(self.table)] if rows else None

    def move(self, lines: int) -> None:
        """Select another line of the present table."""
        rows = self.rows(self.table)
        if rows:
            position = min(max(0, self.position(self.table) + lines), len(rows) - 1)
            self.keys[self.table] = rows[position].key

    def next_table(self) -> None:
        """Go to the next table."""
        self.table = TABLES[(TABLES.index(self.table) + 1) % len(TABLES)]
        if (row := self.selected()) is not None:
            self.keys.setdefault(self.table, row.key)


def render(picture: Picture, width: int, height: int | None) -> RenderableType:
    """Return the whole frame, ``width`` wide; exactly ``height`` lines, or as many as needed."""
    rows = {table: picture.rows(table) for table in TABLES}
    room = _shared({table: len(found) for table, found in rows.items()}, height)
    lines = _head(picture, width)
    for table in TABLES:
        lines += _table(picture, table, rows[table], room[table], width)
    if height is not None:
        lines = lines[: height - 1]
        lines += [Text("")] * (height - 1 - len(lines))
        lines.append(_foot(picture, width))
    return Group(*lines)


def _shared(wanted: dict[str, int], height: int | None) -> dict[str, int]:
    """Return how many lines each table gets: what it needs, or a fair share; at least one."""
    if height is None:
        return {table: max(1, count) for table, count in wanted.items()}
    left = max(len(TABLES), height - _FRAME - _HEADS * len(TABLES))
    shares: dict[str, int] = {}
    for number, table in enumerate(sorted(wanted, key=lambda table: wanted[table])):
        shares[table] = max(1, min(wanted[table], left // (len(TABLES) - number)))
        left -= shares[table]
    return shares


def _head(picture: Picture, width: int) -> list[Text]:
    stats = picture.seen.stats
    due = "?" if stats.due is None else f"{stats.due:,}{'' if stats.due_is_exact else '+'}"
    oldest = "none" if stats.oldest_due_seconds is None else span(stats.oldest_due_seconds)
    counts = [f"{status} {stats.runs.get(status, 0):,}" for status in _COUNTED]
    busy = len({run.leased_by for run in picture.seen.running})
    rates = [f"{name} {stats.rates.get(name, 0.0):,.1f}/s" for name in _RATED]
    title = f"wf top  {datetime.now(UTC).strftime('%H:%M:%S')} UTC  {safe(picture.where)}"
    if picture.pattern != "%":
        title += f"  {picture.pattern}"
    for one in picture.seen.operations[:1]:
        title += f"  {one.kind}: {one.done:,} of {'?' if one.matched is None else f'{one.matched:,}'}"
    return [
        _line(title, width, "bold"),
        _line("  ".join([*counts, f"due {due}", f"oldest {oldest}", f"busy workers {busy}"]), width, ""),
        _line("  ".join(rates), width, "dim"),
    ]


def _foot(picture: Picture, width: int) -> Text:
    if picture.trouble:
        return _line(one_line(picture.trouble), width, "bold red")
    return _line(
        one_line(picture.said) if picture.said else KEYS, width, "bold yellow" if picture.said else "reverse"
    )


_HEADINGS = {
    "types": (
        "type",
        "pending",
        "leased",
        "waiting",
        "failed",
        "in/s",
        "done/s",
        "oldest",
        "wait p95",
        "run p95",
    ),
    "running": ("id", "type", "att", "for", "worker"),
    "failed": ("id", "type", "att", "ago", "error"),
}
_NAMES = {"types": "Types", "running": "Running, longest first", "failed": "Failed, newest first"}


def _table(picture: Picture, table: str, rows: list[Row], room: int, width: int) -> list[Text]:
    is_present = picture.table == table
    position = picture.position(table)
    first = min(max(0, position - room + 1), max(0, len(rows) - room))
    shown = rows[first : first + room]
    cells = [_with_short_id(row, width) for row in shown]
    widths = _widths(table, [_HEADINGS[table], *cells], width)
    more = f" ({len(rows)})" if len(rows) > len(shown) else ""
    lines = [
        _line(
            f"{'▸' if is_present else ' '} {_NAMES[table]}{more}",
            width,
            "bold cyan" if is_present else "bold",
        ),
        _line("  " + _cells(table, _HEADINGS[table], widths), width, "dim"),
    ]
    for number, (row, line) in enumerate(zip(shown, cells, strict=True), first):
        style = f"{row.style} reverse" if is_present and number == position else row.style
        lines.append(_line("  " + _cells(table, line, widths), width, style))
    if not shown:
        lines.append(_line("  none", width, "dim"))
    return lines


def _with_short_id(row: Row, width: int) -> Sequence[str]:
    """Return the cells; in a narrow window with the end of the id, in which the ids of one second differ."""
    if row.run_id is None or width >= _WIDE:
        return row.cells
    return ("…" + row.cells[0][-12:], *row.cells[1:])


def _widths(table: str, lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how wide each column is.  What does not fit: types, then last columns are cut, then left out."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    types = 0 if table == "types" else 1
    over = sum(widths) + 2 * len(widths) - width
    for column, least in ((types, 24), (len(widths) - 1, 12 if types else widths[-1])):
        give = max(0, min(over, widths[column] - least))
        widths[column] -= give
        over -= give
    while over > 0 and len(widths) > types + 1:
        over -= widths.pop() + 2
    return widths


def _cells(table: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    is_number = table == "types"
    return "  ".join(
        shortened(cell, size).rjust(size) if is_number and n > 0 else shortened(cell, size).ljust(size)
        for n, (cell, size) in enumerate(zip(cells, widths, strict=False))
    )


def _line(text: str, width: int, style: str) -> Text:
    return Text(shortened(text, width), style=style, no_wrap=True, overflow="crop", end="\n")


def _busiest_first(one: TypeSummary) -> tuple[float, str]:
    waits = one.runs.get("pending", 0) + one.runs.get("leased", 0)
    return (-(waits + 60 * one.rates.get("claimed", 0.0)), one.type)


def _type_row(one: TypeSummary) -> Row:
    paused = one.disabled_by or ""
    cells = [
        one.type + (" (paused)" if paused else ""),
        *(f"{one.runs.get(status, 0):,}" for status in ("pending", "leased", "waiting", "failed")),
        f"{one.rates.get('submitted', 0.0):,.1f}",
        f"{one.rates.get('succeeded', 0.0) + one.rates.get('failed', 0.0):,.1f}",
        "" if one.oldest_due_seconds is None else span(one.oldest_due_seconds),
        "" if one.wait is None else span(one.wait.p95),
        "" if one.run is None else span(one.run.p95),
    ]
    return Row(one.type, cells, is_paused=paused, style="yellow" if paused else "")


def _running_row(run: Run) -> Row:
    cells = (
        str(run.id),
        run.type,
        f"{run.attempt}/{run.max_attempts}",
        age(run.updated_at),
        safe(run.leased_by or ""),
    )
    return Row(run.type, cells, run_id=run.id)


def _failed_row(run: Run) -> Row:
    error = "(not yours to read)" if "last_error" in run.hidden else one_line((run.last_error or "")[:2000])
    ended = run.finished_at or run.updated_at
    return Row(
        run.type,
        (str(run.id), run.type, f"{run.attempt}/{run.max_attempts}", age(ended), error),
        run_id=run.id,
        style="red",
    )
