"""``wf url``: the database, in the form that every driver takes."""

from __future__ import annotations

import signal

import click

from simpleworkflow.cli.output import json_option, print_json
from simpleworkflow.cli.session import database_option, open_database


@click.command(epilog='Example: psql "$(wf url)" -c "SELECT count(*) FROM workflow_run"')
@click.option("--hold", is_flag=True, help="Keep the embedded PostgreSQL running until Ctrl-C.")
@json_option
@database_option
def url(*, hold: bool, as_json: bool) -> None:
    """Print the database URL that psql, psycopg, asyncpg, pgx, lib/pq and SQLAlchemy all take.

    It holds the password.  The embedded PostgreSQL stops about 2 s after the last process of ours
    that uses it; --hold is one, a worker another.
    """
    database = open_database()
    if as_json:
        print_json({"url": database.portable, "schema": database.schema, "is_embedded": database.is_embedded})
    else:
        click.echo(database.portable)
    if hold and database.is_embedded:
        click.echo("wf: the embedded PostgreSQL is held; Ctrl-C lets it go", err=True)
        ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        signal.sigwait(ends)
