"""``wf type``: what there is of each type, what is paused, what types keep."""

from __future__ import annotations

from dataclasses import asdict

import click

from simpleworkflow.cli.output import json_option, plain_table, print_json, print_table
from simpleworkflow.cli.program import Lazy, LazyGroup
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import moment, one_line, safe, shortened, span
from simpleworkflow.model import Pause, TypeSummary, matches

COMMANDS = {
    "list": Lazy("type", "list_", "Show what there is of each type, and how it goes."),
    "pause": Lazy("type", "pause", "Let a type, or a prefix, not be claimed."),
    "resume": Lazy("type", "resume", "Let what was paused be claimed again."),
    "policy": Lazy("type", "policy", "Say what a type keeps: events, succeeded runs."),
    "policies": Lazy("type", "policies", "List the policies that apply."),
}


@click.group("type", cls=LazyGroup, lazy=COMMANDS)
def type_() -> None:
    """Show types, pause and resume them, say what they keep."""


@click.command("list", epilog="Example: wf type list --window 3600")
@click.option(
    "--window", type=int, default=300, show_default=True, help="Rates and times of so many seconds."
)
@json_option
@database_option
def list_(*, window: int, as_json: bool) -> None:
    """Show the runs of each type by status, how many begin and end, how long they wait and run, what is paused.

    The counts are exact. Waiting and running are the medians of 500 runs that ended lately.
    """
    with open_client() as client:
        found, pauses = client.types(window), client.pauses()
    if as_json:
        print_json({"types": [asdict(one) for one in found], "pauses": [asdict(one) for one in pauses]})
        return
    if found:
        table = plain_table(
            "type",
            "pending",
            "leased",
            "failed",
            "succeeded",
            "/s",
            "oldest due",
            "waits",
            "runs",
            "handled by",
            "",
        )
        for one in found:
            table.add_row(*_row(one))
        print_table(table)
    else:
        click.echo("no types: nothing was submitted yet, and no worker has registered", err=True)
    for pause in pauses:
        click.echo(_told(pause))


def _row(one: TypeSummary) -> list[str]:
    return [
        one.type,
        *(f"{one.runs[status]:,}" for status in ("pending", "leased", "failed", "succeeded")),
        f"{one.rates['claimed']:,.1f}",
        "" if one.oldest_due_seconds is None else span(one.oldest_due_seconds),
        "" if one.wait is None else span(one.wait.p50),
        "" if one.run is None else span(one.run.p50),
        safe(one.handled_by or "nobody"),
        "" if one.is_enabled else f"paused by {safe(one.disabled_by)}",
    ]


def _told(pause: Pause) -> str:
    by = f" by {safe(pause.paused_by)}" if pause.paused_by else ""
    whose = f" for {safe(pause.paused_for)}" if pause.paused_for else ""
    why = f": {shortened(one_line(pause.reason), 200)}" if pause.reason else ""
    return f"{safe(pause.pattern)} paused since {moment(pause.paused_at)}{by}{whose}{why}"


@click.command(epilog="Example: wf type pause 'billing.%' --reason 'the bank is down'")
@click.argument("pattern")
@click.option("--reason", help="Why; kept with who and when.")
@json_option
@database_option
def pause(*, pattern: str, reason: str | None, as_json: bool) -> None:
    """Let no run that PATTERN, a type or a prefix such as 'billing.%', covers be claimed from now on.

    What is leased goes on; what is submitted waits until PATTERN is resumed.
    """
    with open_client() as client:
        changed = client.pause(pattern, reason)
    if as_json:
        print_json({"pattern": pattern, "changed": changed})
        return
    click.echo(f"{safe(pattern)} is paused" + ("" if changed else " already; nothing changed"))


@click.command(epilog="Example: wf type resume 'billing.%'")
@click.argument("pattern")
@json_option
@database_option
def resume(*, pattern: str, as_json: bool) -> None:
    """Let what PATTERN, the very one that was paused, covers be claimed again, at once."""
    with open_client() as client:
        changed = client.resume(pattern)
        left = [one for one in client.pauses() if _covers(one.pattern, pattern)]
    if as_json:
        print_json({"pattern": pattern, "changed": changed})
        return
    click.echo(
        f"{safe(pattern)} is resumed" if changed else f"{safe(pattern)} was not paused; nothing changed"
    )
    for one in left:
        click.echo(f"but {_told(one)}", err=True)


def _covers(pattern: str, other: str) -> bool:
    return matches(pattern, other.removesuffix("%"))


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
