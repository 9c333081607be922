"""``wf migrate``: the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import json_option, print_json
from simpleworkflow.cli.session import database_option, open_connection, read_settings, state
from simpleworkflow.cli.text import safe

if TYPE_CHECKING:
    import psycopg

EPILOG = """\b
Examples:
  wf migrate
  wf migrate --check || echo 'the schema is not the one this version needs'
  wf migrate --sql > for-the-dba.sql
  wf migrate --grant-to app
"""


@click.command(epilog=EPILOG)
@click.option("--check", is_flag=True, help="Change nothing; exit code 4 unless the schema is up to date.")
@click.option(
    "--sql", "as_sql", is_flag=True, help="Change nothing; print the SQL that is missing, for psql."
)
@click.option(
    "--from",
    "after",
    metavar="N",
    type=click.IntRange(min=0),
    help="With --sql: from this version, without a database.",
)
@click.option("--to", metavar="N", type=click.IntRange(min=1), help="Go to version N and no further.")
@click.option("--grant-to", metavar="ROLE", help="Let ROLE, which does not own the tables, use them.")
@json_option
@database_option
def migrate(
    *, check: bool, as_sql: bool, after: int | None, to: int | None, grant_to: str | None, as_json: bool
) -> None:
    """Create the tables and functions, or bring them up to date; any number may do it at once."""
    if check and as_sql:
        raise click.UsageError("--check and --sql do not go together", click.get_current_context())
    if after is not None and not as_sql:
        raise click.UsageError("--from goes with --sql", click.get_current_context())
    if grant_to is not None and (check or to is not None):
        raise click.UsageError(
            "--grant-to goes with neither --check nor --to: it grants what the newest version has",
            click.get_current_context(),
        )
    if to is not None:
        _check_version(to)
    if as_sql:
        _print_sql(after, to, grant_to)
        return
    with open_connection() as (connection, database):
        applied = [] if check else _apply(connection, database.schema, to, as_json=as_json)
        if grant_to is not None:
            _grant(connection, database.schema, grant_to, as_json=as_json)
        _tell_state(
            connection, database.schema, applied, is_check=check, granted_to=grant_to, as_json=as_json
        )


def _check_version(version: int) -> None:
    from simpleworkflow.sql import load_migrations

    latest = load_migrations("workflow")[-1].version
    if version > latest:
        raise click.UsageError(f"--to: expected 1 to {latest}, got {version}", click.get_current_context())


def _print_sql(after: int | None, to: int | None, grant_to: str | None) -> None:
    from simpleworkflow import dburl
    from simpleworkflow.migrate import grants_sql, migration_sql, read_state

    settings, url = read_settings(), state().database_url
    if after is None and (url or settings.database_url):
        with open_connection() as (connection, database):
            after = read_state(connection, database.schema).version
    schema = dburl.parse(url).schema if url else settings.schema
    grants = "" if grant_to is None else "\n" + grants_sql(schema, grant_to)
    click.echo(migration_sql(schema, after=after or 0, to=to) + grants, nl=False)


def _apply(connection: psycopg.Connection[Any], schema: str, to: int | None, *, as_json: bool) -> list[int]:
    from simpleworkflow.migrate import migrate as apply_migrations

    def report(line: str) -> None:
        if not as_json:
            click.echo(line)

    return [migration.version for migration in apply_migrations(connection, schema, to=to, report=report)]


def _grant(connection: psycopg.Connection[Any], schema: str, role: str, *, as_json: bool) -> None:
    from simpleworkflow.migrate import grant_application

    grant_application(connection, schema, role)
    if not as_json:
        click.echo(f"role {safe(role)} may use schema {schema!r}")


def _tell_state(
    connection: psycopg.Connection[Any],
    schema: str,
    applied: list[int],
    *,
    is_check: bool,
    granted_to: str | None,
    as_json: bool,
) -> None:
    from simpleworkflow.errors import SchemaMismatch
    from simpleworkflow.migrate import read_state

    found = read_state(connection, schema)
    problem = found.problem()
    if as_json:
        print_json(
            {
                "schema": schema,
                "version": found.version,
                "latest": found.latest,
                "applied": applied,
                "pending": [migration.version for migration in found.pending],
                "granted_to": granted_to,
            }
        )
    elif problem is None:
        click.echo(f"schema {schema!r} is at version {found.version}, up to date")
    elif not is_check:
        click.echo(f"schema {schema!r} is at version {found.version} of {found.latest}")
    if is_check and problem:
        if as_json:
            raise click.exceptions.Exit(ExitCode.SCHEMA)
        raise SchemaMismatch(problem)
