"""``wf doctor``: whether the installation is well, and what to do about what is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from simpleworkflow.cli.arguments import Duration
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import console, json_option, print_json
from simpleworkflow.cli.session import database_option, open_connection
from simpleworkflow.cli.text import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from simpleworkflow.health import Finding

STYLES = {"ok": "green", "notice": "cyan", "warning": "yellow", "error": "bold red"}
# Below that there is no room for columns beside each other.
NARROW_COLUMNS = 70


@click.command(epilog="Example: wf doctor --long 30s || echo 'see above'")
@click.option(
    "--long",
    "long_seconds",
    metavar="DURATION",
    type=Duration(),
    default=300.0,
    show_default="5m",
    help="How long a transaction may be open, and a due run wait, before it is told.",
)
@json_option
@database_option
def doctor(*, long_seconds: float, as_json: bool) -> None:
    """Examine the database, the schema and its runs; name what is wrong, why it matters, and the remedy.

    Changes nothing.  Exit code 0 when all is well or only worth a notice, 1 when something needs attention.
    """
    from simpleworkflow.health import examine, examine_path, needs_attention

    with open_connection() as (connection, database):
        findings = [
            *examine_path(connection, database.conninfo, is_pooled=database.is_pooled),
            *examine(connection, database.schema, long_seconds=long_seconds),
        ]
    if as_json:
        print_json(
            {"is_well": not needs_attention(findings), "findings": [one._asdict() for one in findings]}
        )
    else:
        _print(findings)
    if needs_attention(findings):
        raise click.exceptions.Exit(ExitCode.NO)


def _print(findings: Sequence[Finding]) -> None:
    target = console()
    width = max(len(one.check) for one in findings)
    for one in findings:
        if not target.is_terminal:
            click.echo("\n".join(_lines(one, width)))
        else:
            target.print(_shown(one, width, is_narrow=target.width < NARROW_COLUMNS))
    click.echo()
    click.echo(_summary(findings))


def _lines(one: Finding, width: int) -> list[str]:
    """Return a finding for a pipe: one line for the fact, one for the reason, one for the remedy."""
    return [f"{one.severity:<7}  {one.check:<{width}}  {one_line(one.found)}".rstrip(), *_advice(one)]


def _advice(one: Finding) -> list[str]:
    told = (("why", one.why), ("do", one.remedy))
    return [f"{'':<7}  {name + ':':<4} {one_line(text)}" for name, text in told if text]


def _shown(one: Finding, width: int, *, is_narrow: bool) -> RenderableType:
    """Return a finding for a terminal, its text wrapped beside its check, or below it where that is narrow."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    severity = Text(one.severity, style=STYLES[one.severity])
    found = Text(one_line(one.found), style="dim" if one.severity == "ok" else "")
    advice = Table.grid(padding=(0, 1, 0, 0))
    advice.add_column(style="dim", no_wrap=True)
    advice.add_column(overflow="fold")
    if one.why:
        advice.add_row("why", Text(one_line(one.why), style="dim"))
    if one.remedy:
        advice.add_row("do", Text(one_line(one.remedy), style="bold"))
    if is_narrow:
        fact = Text.assemble(severity, " ", (one.check, "underline"), " ", found)
        return Group(fact, Padding(advice, (0, 0, 0, 2))) if advice.row_count else fact
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=7)
    row.add_column(width=width)
    row.add_column(overflow="fold")
    row.add_row(severity, Text(one.check), Group(found, advice) if advice.row_count else found)
    return row


def _summary(findings: Sequence[Finding]) -> str:
    counts = {name: sum(one.severity == name for one in findings) for name in ("error", "warning", "notice")}
    said = ", ".join(
        f"{number} {name}{'s' if number > 1 else ''}" for name, number in counts.items() if number
    )
    return f"{len({one.check for one in findings})} checks: {said or 'all is well'}"
