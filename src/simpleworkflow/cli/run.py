"""``wf run``: look at runs and change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from simpleworkflow.cli.arguments import Moment, RunId
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import (
    console,
    event_document,
    json_option,
    plain_table,
    print_changes,
    print_json,
    run_document,
    status_text,
)
from simpleworkflow.cli.program import Lazy, LazyGroup
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import age, safe
from simpleworkflow.model import ENDED, STATUSES

if TYPE_CHECKING:
    from simpleworkflow.client import Client
    from simpleworkflow.model import RunPage

COMMANDS = {
    "list": Lazy("run", "list_", "List runs, newest first."),
    "show": Lazy("run", "show", "Show a run and its audit trail."),
    "cancel": Lazy("run", "cancel", "Cancel runs."),
    "reopen": Lazy("run", "reopen", "Give failed or cancelled runs new attempts."),
    "retry": Lazy("run", "reopen", "The same as reopen."),
    "watch": Lazy("watch", "watch", "Follow the events of runs until they end."),
}

_MANY = click.argument("run_ids", metavar="ID...", type=RunId(), nargs=-1, required=True)
_REASON = click.option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")


@click.group(cls=LazyGroup, lazy=COMMANDS)
def run() -> None:
    """List, show, cancel, reopen and watch runs."""


@click.command(epilog="Example: wf run list --type 'billing.%' --status failed --since 1d")
@click.option(
    "--type", "patterns", metavar="PATTERN", multiple=True, help="A type, or a prefix such as 'billing.%'."
)
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="Repeat it for several."
)
@click.option(
    "--since", metavar="TIME", type=Moment(may_be_ago=True), help="Created then or later; 2h: 2 hours ago."
)
@click.option("--before", metavar="TIME", type=Moment(may_be_ago=True), help="Created earlier than that.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Runs on a page.")
@click.option(
    "--page", metavar="TOKEN", type=RunId(), help="Where the page before said that the next begins."
)
@json_option
@database_option
def list_(
    *,
    patterns: Sequence[str],
    statuses: Sequence[str],
    since: datetime | None,
    before: datetime | None,
    limit: int,
    page: UUID | None,
    as_json: bool,
) -> None:
    """List runs, newest first."""
    with open_client() as client:
        found = client.list(
            patterns=patterns or None,
            status=statuses or None,
            created_from=since,
            created_before=before,
            limit=limit,
            before=page,
        )
    if as_json:
        print_json({"runs": [run_document(one) for one in found.runs], "next_page": found.next_before})
    else:
        _print_page(found)


def _print_page(page: RunPage) -> None:
    if not page.runs:
        click.echo("no such runs", err=True)
        return
    table = plain_table("id", "type", "status", "att", "age")
    table.columns[0].no_wrap = True
    for one in page.runs:
        attempts = f"{one.attempt}/{one.max_attempts}"
        table.add_row(str(one.id), safe(one.type), status_text(one.status), attempts, age(one.created_at))
    console().print(table)
    if page.next_before is not None:
        click.echo(f"more: add --page {page.next_before}", err=True)


@click.command(epilog="Example: wf run show 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00")
@click.argument("run_id", metavar="ID", type=RunId())
@json_option
@database_option
def show(*, run_id: UUID, as_json: bool) -> None:
    """Show a run and its audit trail: every change of its status, who made it, and when."""
    with open_client() as client:
        found = client.get(run_id)
        events = client.events(run_id)
    if as_json:
        print_json({"run": run_document(found), "events": [event_document(event) for event in events]})
    else:
        from simpleworkflow.cli.timeline import print_events, print_run

        print_run(found)
        click.echo()
        print_events(events)


@click.command(epilog="Example: wf run cancel 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00 --reason 'ordered twice'")
@_MANY
@_REASON
@json_option
@database_option
def cancel(*, run_ids: Sequence[UUID], reason: str | None, as_json: bool) -> None:
    """Cancel runs; one that a worker executes is stopped by it soon after.

    A run that is cancelled already is fine; for one that succeeded or failed the exit code is 1.
    """
    with open_client() as client:
        changes = _change(client, run_ids, lambda run_id: client.cancel(run_id, reason=reason))
    print_changes(changes, as_json=as_json)
    if any(now != "cancelled" for _, now in changes.values()):
        raise click.exceptions.Exit(ExitCode.NO)


@click.command(epilog="Example: wf run reopen 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00 --attempts 5")
@_MANY
@click.option(
    "--attempts", type=click.IntRange(1, 1000), default=3, show_default=True, help="The new budget."
)
@_REASON
@json_option
@database_option
def reopen(*, run_ids: Sequence[UUID], attempts: int, reason: str | None, as_json: bool) -> None:
    """Give failed or cancelled runs new attempts, due now; also called retry.

    A run that has not ended is fine; for one that succeeded the exit code is 1.
    """
    with open_client() as client:
        changes = _change(
            client, run_ids, lambda run_id: client.reopen(run_id, attempts=attempts, reason=reason)
        )
    print_changes(changes, as_json=as_json)
    if any(not changed and now in ENDED for changed, now in changes.values()):
        raise click.exceptions.Exit(ExitCode.NO)


def _change(
    client: Client, run_ids: Sequence[UUID], change: Callable[[UUID], bool]
) -> dict[UUID, tuple[bool, str]]:
    """Change each run; return whether it was changed, and its status afterwards."""
    # First look whether all of them exist: a typing mistake in the second id leaves the first alone.
    for run_id in run_ids:
        client.get(run_id)
    return {run_id: (change(run_id), client.get(run_id).status) for run_id in dict.fromkeys(run_ids)}
