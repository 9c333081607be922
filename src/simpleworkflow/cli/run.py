"""``wf run``: look at runs and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from simpleworkflow.cli.arguments import Moment, RunId, read_payload
from simpleworkflow.cli.output import (
    event_document,
    json_option,
    plain_table,
    print_json,
    print_table,
    run_document,
    status_text,
)
from simpleworkflow.cli.program import Lazy, LazyGroup
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import age, safe
from simpleworkflow.model import STATUSES

if TYPE_CHECKING:
    from simpleworkflow.model import RunPage, Status

COMMANDS = {
    "list": Lazy("run", "list_", "List runs, newest first."),
    "show": Lazy("run", "show", "Show a run and its audit trail."),
    "cancel": Lazy("change", "cancel", "Cancel runs."),
    "reopen": Lazy("change", "reopen", "Give failed or cancelled runs new attempts."),
    "retry": Lazy("change", "reopen", "The same as reopen."),
    "watch": Lazy("watch", "watch", "Follow the events of runs until they end."),
}


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
@click.option("--payload", metavar="JSON", help="""What the payload contains: '{"customer": {"id": 42}}'.""")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Runs on a page.")
@click.option(
    "--page", metavar="TOKEN", type=RunId(), help="Where the page before said that the next begins."
)
@click.option("--all", "look_at_all", is_flag=True, help="Look at all runs until the page is full.")
@json_option
@database_option
def list_(
    *,
    patterns: Sequence[str],
    statuses: Sequence[Status],
    since: datetime | None,
    before: datetime | None,
    payload: str | None,
    limit: int,
    page: UUID | None,
    look_at_all: bool,
    as_json: bool,
) -> None:
    """List runs, newest first.

    It looks at 10,000 runs, and tells when there are more to look at.
    """
    with open_client() as client:
        found = client.list(
            pattern=patterns or None,
            status=statuses or None,
            created_from=since,
            created_before=before,
            payload=None if payload is None else read_payload(payload),
            limit=limit,
            page=page,
            look_at_all=look_at_all,
        )
    if as_json:
        print_json(
            {
                "runs": [run_document(one) for one in found.runs],
                "next_page": found.next_page,
                "looked_at": found.looked_at,
                "looked_back_to": found.looked_back_to,
            }
        )
    else:
        if found.runs:
            _print_runs(found)
        _print_more(found, limit)


def _print_runs(page: RunPage) -> None:
    table = plain_table("id", "type", "status", "att", "age")
    table.columns[0].no_wrap = True
    for one in page.runs:
        attempts = f"{one.attempt}/{one.max_attempts}"
        table.add_row(str(one.id), safe(one.type), status_text(one.status), attempts, age(one.created_at))
    print_table(table)


def _print_more(page: RunPage, limit: int) -> None:
    if page.next_page is None:
        if not page.runs:
            click.echo("no such runs", err=True)
    elif len(page.runs) == limit:
        click.echo(f"more: add --page {page.next_page}", err=True)
    else:
        back_to = page.looked_back_to and f", back to {page.looked_back_to.isoformat(timespec='seconds')}"
        click.echo(
            f"{'no more' if page.runs else 'no'} such runs among the {page.looked_at:,} looked at{back_to or ''}; "
            f"to look on, add --page {page.next_page}, or --all",
            err=True,
        )


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
        if events:
            print_events(events)
        else:
            click.echo("no events: its type kept none when it was recorded; see `wf type policies`", err=True)
