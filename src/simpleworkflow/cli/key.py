"""``wf server key``: the keys that the server asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from simpleworkflow.cli.output import json_option, plain_table, print_json, print_table
from simpleworkflow.cli.session import database_option, open_connection
from simpleworkflow.errors import InvalidInput

if TYPE_CHECKING:
    from simpleworkflow.statements.serving import Key

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,100}")
ROLES = ("reader", "operator", "admin")


@click.group()
def key() -> None:
    """Make, list and revoke the API keys of the server."""


@key.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="reader sees no payloads; operator sees, submits and steers; admin may do all.",
)
@json_option
@database_option
def add(*, name: str, role: str, as_json: bool) -> None:
    """Make a key for NAME and print it: this once, as only its SHA-256 is kept.

    The history of what is done with it tells NAME.
    """
    from simpleworkflow.database import run
    from simpleworkflow.statements.serving import add_key
    from simpleworkflow.web.keys import digest_of, make_key

    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"name: expected 1 to 100 of A-Z a-z 0-9 . _ @ -, got {name[:60]!a}")
    secret = make_key()
    with open_connection() as (connection, database):
        if not run(connection, add_key(name, role, digest_of(secret)), database.schema):
            raise InvalidInput(f"name: there is a key {name} already; revoke it first, or take another name")
    if as_json:
        print_json({"name": name, "role": role, "key": secret})
    else:
        click.echo(secret)


@key.command("list")
@json_option
@database_option
def list_(*, as_json: bool) -> None:
    """List the keys, revoked ones too, without the keys themselves."""
    keys = read_keys()
    if as_json:
        names = ("name", "role", "created_at", "created_by", "revoked_at")
        print_json({"keys": [{name: getattr(one, name) for name in names} for one in keys]})
        return
    table = plain_table("name", "role", "made", "by", "revoked")
    for one in keys:
        revoked = one.revoked_at.isoformat(" ", "seconds") if one.revoked_at else "-"
        table.add_row(one.name, one.role, one.created_at.isoformat(" ", "seconds"), one.created_by, revoked)
    print_table(table)


@key.command()
@click.argument("name")
@database_option
def revoke(*, name: str) -> None:
    """Revoke the key of NAME: no server takes it a second later."""
    from simpleworkflow.database import run
    from simpleworkflow.statements.serving import revoke_key

    with open_connection() as (connection, database):
        if not run(connection, revoke_key(name), database.schema):
            raise InvalidInput(
                f"name: there is no key {name[:100]!a}; `wf server key list` shows those that are"
            )
    click.echo(f"the key {name} is revoked")


def read_keys() -> Sequence[Key]:
    """Return the keys in the database."""
    from simpleworkflow.database import run
    from simpleworkflow.statements.serving import list_keys

    with open_connection() as (connection, database):
        return run(connection, list_keys(), database.schema)
