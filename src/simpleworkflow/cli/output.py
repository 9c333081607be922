"""What commands print: tables and colours for people, one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from simpleworkflow.model import Run, RunEvent

F = TypeVar("F", bound=Callable[..., Any])

STATUS_STYLES = {
    "pending": "yellow",
    "leased": "cyan",
    "waiting": "magenta",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "red",
}
# Wider than any line of ours: what a pipe reads is neither wrapped nor cut.
_PIPE_WIDTH = 100_000


def json_option(command: F) -> F:
    """Let a command take ``--json``, as its argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def print_json(document: object, *, is_compact: bool = False) -> None:
    """Print one JSON document, in ASCII: no terminal can be made to obey it."""
    click.echo(json.dumps(document, default=_plain, indent=None if is_compact else 2))


def run_document(run: Run) -> dict[str, Any]:
    """Return a run with the table's column names; ``hidden`` where this role may not read some of them."""
    document = {field.name: getattr(run, field.name) for field in fields(run) if field.name != "hidden"}
    return document | ({"hidden": sorted(run.hidden)} if run.hidden else {})


def event_document(event: RunEvent) -> dict[str, Any]:
    """Return an event with the table's column names."""
    return {
        "id": event.id,
        "workflow_id": event.run_id,
        "event_type": event.event_type,
        "data": event.data,
        "created_at": event.created_at,
    }


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def console() -> Console:
    """Return where people read: as wide as the terminal; not cut, and without colours, in a pipe."""
    from rich.console import Console

    class PipeConsole(Console):
        """Leaves a closed pipe to the edge, which knows the exit code."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    found = PipeConsole(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = _PIPE_WIDTH
    return found


def plain_table(*headers: str) -> Table:
    """Return an empty table without lines, its columns two spaces apart."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table; in a pipe without the spaces that fill its last column."""
    target = console()
    if target.is_terminal:
        target.print(table)
        return
    with target.capture() as printed:
        target.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def status_text(status: str) -> Text:
    """Return a status in its colour."""
    from rich.text import Text

    return Text(status, style=STATUS_STYLES.get(status, ""))


def print_changes(changes: dict[UUID, tuple[bool, str]], *, as_json: bool) -> None:
    """Print for each run whether a change was made, and its status now."""
    if as_json:
        rows = [{"id": id_, "changed": changed, "status": now} for id_, (changed, now) in changes.items()]
        print_json({"runs": rows})
    for id_, (changed, now) in changes.items() if not as_json else ():
        click.echo(f"run {id_} is {now}" + ("" if changed else "; nothing changed"))
