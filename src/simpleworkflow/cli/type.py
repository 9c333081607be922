"""``wf type``: what types keep."""

from __future__ import annotations

import click

from simpleworkflow.cli.output import json_option, plain_table, print_json, print_table
from simpleworkflow.cli.program import Lazy, LazyGroup
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import moment, safe

COMMANDS = {
    "policy": Lazy("type", "policy", "Say what a type keeps: events, succeeded runs."),
    "policies": Lazy("type", "policies", "List the policies that apply."),
}


@click.group("type", cls=LazyGroup, lazy=COMMANDS)
def type_() -> None:
    """Say what types keep: their events, their succeeded runs."""


@click.command(epilog="Example: wf type policy 'notify.%' --no-events --delete-succeeded")
@click.argument("pattern")
@click.option("--no-events", is_flag=True, help="Runs recorded from now on leave no events.")
@click.option("--delete-succeeded", is_flag=True, help="A run is deleted in the moment it succeeds.")
@click.option("--default", "is_dropped", is_flag=True, help="Drop the policy of this pattern.")
@json_option
@database_option
def policy(*, pattern: str, no_events: bool, delete_succeeded: bool, is_dropped: bool, as_json: bool) -> None:
    """Set the policy of PATTERN, a type or a prefix such as 'notify.%'.

    It trades history for speed: see the guide on policies for what it costs. Without an option, PATTERN keeps
    everything, whatever a less specific policy says; with --default, that one applies again.
    """
    if is_dropped and (no_events or delete_succeeded):
        raise click.UsageError(
            "--default takes neither --no-events nor --delete-succeeded", click.get_current_context()
        )
    with open_client() as client:
        if is_dropped:
            changed = client.drop_policy(pattern)
        else:
            changed = client.set_policy(
                pattern, keeps_events=not no_events, keeps_succeeded=not delete_succeeded
            )
    if as_json:
        print_json({"pattern": pattern, "changed": changed})
        return
    now = "has no policy of its own" if is_dropped else _said(not no_events, not delete_succeeded)
    click.echo(f"{safe(pattern)} {now}" + ("" if changed else "; nothing changed"))


@click.command(epilog="Example: wf type policies --json")
@json_option
@database_option
def policies(*, as_json: bool) -> None:
    """List the policies that apply, the least specific first; of several that cover a type the last one counts."""
    with open_client() as client:
        found = client.policies()
    if as_json:
        rows = [
            {
                "pattern": one.pattern,
                "keeps_events": one.keeps_events,
                "keeps_succeeded": one.keeps_succeeded,
                "applies_from": one.applies_from,
                "set_by": one.set_by,
            }
            for one in found
        ]
        print_json({"policies": rows})
        return
    if not found:
        click.echo("no policies: every type keeps its events and its runs", err=True)
        return
    table = plain_table("pattern", "events", "succeeded runs", "since", "by")
    for one in found:
        events = "kept" if one.keeps_events else "none"
        succeeded = "kept" if one.keeps_succeeded else "deleted"
        table.add_row(one.pattern, events, succeeded, moment(one.applies_from), safe(one.set_by))
    print_table(table)


def _said(keeps_events: bool, keeps_succeeded: bool) -> str:
    events = "keeps events" if keeps_events else "keeps no events of new runs"
    succeeded = "keeps succeeded runs" if keeps_succeeded else "deletes runs that succeed"
    return f"{events} and {succeeded}"
