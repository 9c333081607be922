"""``wf migrate``: the schema."""

from __future__ import annotations

from collections.abc import Callable
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
  wf migrate --roles
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
@click.option(
    "--roles",
    "with_roles",
    is_flag=True,
    help="Make group roles for producers, workers, operators and readers.",
)
@json_option
@database_option
def migrate(
    *,
    check: bool,
    as_sql: bool,
    after: int | None,
    to: int | None,
    grant_to: str | None,
    with_roles: bool,
    as_json: bool,
) -> None:
    """Create the tables and functions, or bring them up to date; any number may do it at once."""
    context = click.get_current_context()
    if check and as_sql:
        raise click.UsageError("--check and --sql do not go together", context)
    if after is not None and not as_sql:
        raise click.UsageError("--from goes with --sql", context)
    for option, is_given in (("--grant-to", grant_to is not None), ("--roles", with_roles)):
        if is_given and (check or to is not None):
            raise click.UsageError(
                f"{option} goes with neither --check nor --to: it grants what the newest version has", context
            )
    if to is not None:
        _check_version(to)
    if as_sql:
        _print_sql(after, to, grant_to, with_roles=with_roles)
        return
    say = _say_nothing if as_json else click.echo
    with open_connection() as (connection, database):
        applied = [] if check else _apply(connection, database.schema, to, say)
        roles = _make_roles(connection, database.schema, say) if with_roles else {}
        if grant_to is not None:
            _grant(connection, database.schema, grant_to, say)
        _tell_state(
            connection,
            database.schema,
            {"applied": applied, "granted_to": grant_to, "roles": roles},
            is_check=check,
            as_json=as_json,
        )


def _say_nothing(_: str) -> None:
    pass


def _check_version(version: int) -> None:
    from simpleworkflow.sql import load_migrations

    latest = load_migrations("workflow")[-1].version
    if version > latest:
        raise click.UsageError(f"--to: expected 1 to {latest}, got {version}", click.get_current_context())


def _print_sql(after: int | None, to: int | None, grant_to: str | None, *, with_roles: bool) -> None:
    from simpleworkflow import dburl
    from simpleworkflow.grants import grants_sql, renewal_sql, roles_sql
    from simpleworkflow.migrate import migration_sql, read_state

    settings, url = read_settings(), state().database_url
    renewal = ""
    if after is None and (url or settings.database_url):
        with open_connection() as (connection, database):
            found = read_state(connection, database.schema)
            after = found.version
            if found.pending and to is None and not with_roles:
                renewal = renewal_sql(connection, database.schema)
    schema = dburl.parse(url).schema if url else settings.schema
    parts = [renewal]
    if with_roles:
        parts.append(roles_sql(schema))
    if grant_to is not None:
        parts.append(grants_sql(schema, grant_to))
    grants = [f"\nbegin;\n{part}commit;\n" for part in parts if part]
    click.echo(migration_sql(schema, after=after or 0, to=to) + "".join(grants), nl=False)


def _apply(
    connection: psycopg.Connection[Any], schema: str, to: int | None, say: Callable[[str], None]
) -> list[int]:
    from simpleworkflow.migrate import migrate as apply_migrations

    return [migration.version for migration in apply_migrations(connection, schema, to=to, report=say)]


def _make_roles(
    connection: psycopg.Connection[Any], schema: str, say: Callable[[str], None]
) -> dict[str, list[str]]:
    from simpleworkflow.grants import create_roles

    roles = create_roles(connection, schema)
    for role, members in roles.items():
        say(f"role {role}: members {', '.join(map(safe, members)) or 'none yet'}")
    return roles


def _grant(connection: psycopg.Connection[Any], schema: str, role: str, say: Callable[[str], None]) -> None:
    from simpleworkflow.grants import grant_application

    grant_application(connection, schema, role)
    say(f"role {safe(role)} may use schema {schema!r}")


def _tell_state(
    connection: psycopg.Connection[Any],
    schema: str,
    done: dict[str, Any],
    *,
    is_check: bool,
    as_json: bool,
) -> None:
    from simpleworkflow.errors import SchemaMismatch
    from simpleworkflow.migrate import read_state

    found = read_state(connection, schema)
    problem = found.problem()
    if as_json:
        pending = [migration.version for migration in found.pending]
        state_ = {"schema": schema, "version": found.version, "latest": found.latest, "pending": pending}
        print_json(state_ | done)
    elif problem is None:
        click.echo(f"schema {schema!r} is at version {found.version}, up to date")
    elif not is_check:
        click.echo(f"schema {schema!r} is at version {found.version} of {found.latest}")
    if is_check and problem:
        if as_json:
            raise click.exceptions.Exit(ExitCode.SCHEMA)
        raise SchemaMismatch(problem)
