"""``wf why``: the one reason that a run is not running."""

from __future__ import annotations

from uuid import UUID

import click

from simpleworkflow.cli.arguments import RunId
from simpleworkflow.cli.output import json_option, print_json
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.cli.text import one_line


@click.command(epilog="Example: wf why 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00")
@click.argument("run_id", metavar="ID", type=RunId())
@json_option
@database_option
def why(*, run_id: UUID, as_json: bool) -> None:
    """Say why a run is not running: the one reason, with its figures, and what to do about it."""
    with open_client() as client:
        found = client.why(run_id)
    if as_json:
        print_json(
            {"reason": found.reason, "says": found.says, "remedy": found.remedy, "facts": dict(found.facts)}
        )
        return
    click.echo(f"{click.style(found.reason, bold=True)}: {one_line(found.says)}")
    click.echo(f"remedy: {one_line(found.remedy)}")
