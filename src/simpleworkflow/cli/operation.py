"""``wf operation``: what was asked to be done to many runs at once, and how far it is."""

from __future__ import annotations

from uuid import UUID

import click

from simpleworkflow.cli.arguments import RunId
from simpleworkflow.cli.bulk import operation_document, said, watch
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import json_option, plain_table, print_json, print_table
from simpleworkflow.cli.program import Lazy, LazyGroup
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import age, moment, one_line, safe, shortened
from simpleworkflow.operation import Operation

COMMANDS = {
    "list": Lazy("operation", "list_", "List operations, the last asked for first."),
    "show": Lazy("operation", "show", "Show how an operation stands; --watch: until it ends."),
    "stop": Lazy("operation", "stop", "Stop an operation; what it has changed stays."),
}
_ID = click.argument("operation_id", metavar="ID", type=RunId("an operation's id", "wf operation list"))


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog="Example: wf operation list")
def operation() -> None:
    """See and stop what changes many runs at once; wf run cancel --pattern begins it."""


@click.command(epilog="Example: wf operation list --json")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@json_option
@database_option
def list_(*, limit: int, as_json: bool) -> None:
    """List operations, the last asked for first."""
    with open_client() as client:
        found = client.operations(limit=limit)
    if as_json:
        print_json({"operations": [operation_document(one) for one in found]})
        return
    if not found:
        click.echo("no operations: wf run cancel --pattern asks for one", err=True)
        return
    table = plain_table("id", "kind", "patterns", "state", "changed", "matched", "age", "by", "reason")
    table.columns[0].no_wrap = True
    for one in found:
        table.add_row(
            str(one.id),
            one.kind,
            " ".join(one.patterns),
            one.state,
            f"{one.changed:,}",
            "" if one.matched is None else f"{one.matched:,}",
            age(one.requested_at),
            safe(one.on_behalf_of or one.requested_by),
            safe(shortened(one_line(one.reason), 60)),
        )
    print_table(table)


@click.command(epilog="Example: wf operation show 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00 --watch")
@_ID
@click.option(
    "--watch", "is_watched", is_flag=True, help="Until it has ended; carry it out where nobody does."
)
@json_option
@database_option
def show(*, operation_id: UUID, is_watched: bool, as_json: bool) -> None:
    """Show an operation: who asked for what, why, and how far it is."""
    with open_client() as client:
        found = client.operation(operation_id)
        if is_watched:
            found = watch(client, found)
    if as_json:
        print_json({"operation": operation_document(found)})
        return
    for name, value in _lines(found):
        click.echo(f"{name:<9} {value}")


def _lines(one: Operation) -> list[tuple[str, str]]:
    times = [f"created from {moment(one.created_from)}"] if one.created_from else []
    times += [f"created before {moment(one.created_before)}"] if one.created_before else []
    matched = "not counted yet" if one.matched is None else f"{one.matched:,}"
    by = one.requested_by + (f" for {one.on_behalf_of}" if one.on_behalf_of else "")
    return [
        ("operation", str(one.id)),
        ("kind", one.kind + (f", {one.attempts} attempts" if one.attempts else "")),
        ("filter", ", ".join([" ".join(one.patterns), " ".join(one.statuses), *times])),
        ("reason", safe(one_line(one.reason))),
        ("asked", f"{moment(one.requested_at)} by {safe(by)}"),
        ("state", one.state + (f" {moment(one.ended_at)}" if one.ended_at else "")),
        ("runs", f"{one.changed:,} changed, {one.done:,} dealt with, of {matched}"),
        *([("stopped", f"by {safe(one.stopped_by)}")] if one.stopped_by else []),
        *([("error", safe(one_line(one.error)))] if one.error else []),
    ]


@click.command(epilog="Example: wf operation stop 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00")
@_ID
@json_option
@database_option
def stop(*, operation_id: UUID, as_json: bool) -> None:
    """Stop an operation: it changes no run any more; what it has changed stays.

    For one that had ended the exit code is 1.
    """
    with open_client() as client:
        changed = client.stop_operation(operation_id)
        found = client.operation(operation_id)
    if as_json:
        print_json({"changed": changed, "operation": operation_document(found)})
    else:
        click.echo(said(found) if changed else f"operation {found.id} had {found.state}; nothing changed")
    if not changed:
        raise click.exceptions.Exit(ExitCode.NO)
