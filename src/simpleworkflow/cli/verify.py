"""``wf verify``: whether what the tables hold is what the promises say."""

from __future__ import annotations

import click

from simpleworkflow.cli.arguments import Duration
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import json_option, print_json
from simpleworkflow.cli.session import database_option, open_connection
from simpleworkflow.cli.text import one_line


@click.command(epilog="Example: wf verify && echo 'all is well'")
@click.option(
    "--slack",
    metavar="DURATION",
    type=Duration(),
    default=5.0,
    show_default="5s",
    help="How long a lease may have lapsed before somebody should have expired it.",
)
@json_option
@database_option
def verify(*, slack: float, as_json: bool) -> None:
    """Check that runs and events keep the promises; print each violation in one line.

    Silent and exit code 0 when all is well, 1 when it is not.
    """
    from simpleworkflow import database as runner
    from simpleworkflow.statements.verifying import verify as find_violations

    with open_connection() as (connection, database):
        violations = runner.run(connection, find_violations(slack), database.schema)
    if as_json:
        rows = [{"law": one.law, "run_id": one.run_id, "found": one.found} for one in violations]
        print_json({"violations": rows})
    for one in violations if not as_json else ():
        where = f"run {one.run_id}: " if one.run_id else ""
        click.echo(f"{one_line(one.law)}: {where}{one_line(one.found)}")
    if violations:
        raise click.exceptions.Exit(ExitCode.NO)
