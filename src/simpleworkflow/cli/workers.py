"""``wf worker list``: who works, where, on what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from simpleworkflow.cli.output import json_option, plain_table, print_json, print_table
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import age, safe, shortened

if TYPE_CHECKING:
    from simpleworkflow.summaries import WorkerSummary

STATE_STYLES = {"running": "green", "stopping": "yellow", "lost": "bold red", "stopped": "dim"}
_PATTERNS_CHARACTERS_MAX = 60


@click.command("list", epilog="Example: wf worker list --json")
@click.option("--all", "with_stopped", is_flag=True, help="Those too that have stopped within the last day.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=500, show_default=True, help="Workers at most."
)
@json_option
@database_option
def list_(*, with_stopped: bool, limit: int, as_json: bool) -> None:
    """List the workers: those that run, that are stopping, and that were lost, by how they are and when they started.

    A worker that is killed is lost at once where its supervisor lives, else when it has not been seen for three beats.
    """
    with open_client() as client:
        found = [one for one in client.workers(limit=limit) if with_stopped or one.state != "stopped"]
    if as_json:
        print_json({"workers": [_document(one) for one in found]})
    elif found:
        _print(found)
    else:
        click.echo("no worker runs; start one with wf worker MODULE:WORKER", err=True)


def _print(workers: list[WorkerSummary]) -> None:
    from rich.text import Text

    table = plain_table("worker", "state", "taken", "handles", "up", "seen", "version")
    table.columns[0].no_wrap = True
    for one in workers:
        table.add_row(
            safe(one.id),
            Text(one.state, style=STATE_STYLES[one.state]),
            f"{one.held}/{one.concurrency}",
            safe(shortened(" ".join(one.patterns), _PATTERNS_CHARACTERS_MAX)),
            age(one.started_at),
            age(one.seen_at),
            safe(one.version or one.runtime),
        )
    print_table(table)


def _document(worker: WorkerSummary) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(worker)
