"""Logins with the rights of each group role in the schema of a module, to try them as."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import conninfo

from builders import Database, connect
from conftest import Server
from simpleworkflow.dburl import parse
from simpleworkflow.grants import create_roles, grant_application, group_roles
from simpleworkflow.sql import GROUPS

# An application has most of these rights together; a nobody may connect to the database and has none.
WHO = (*GROUPS, "application", "nobody")
PASSWORD = "Marked-pass"


class Logins:
    """One login for each of ``WHO`` in one schema; their connections are closed with it."""

    def __init__(self, server: Server, schema: str) -> None:
        self._server = server
        self.schema = schema
        self._opened: dict[str, Database] = {}

    def name_of(self, who: str) -> str:
        """Return the name of a login."""
        return f"{self.schema}_{who}_login"

    def url_of(self, who: str) -> str:
        """Return the URL with which a login connects to the schema."""
        said = conninfo.conninfo_to_dict(parse(self._server.url).conninfo)
        said |= {"user": self.name_of(who), "password": PASSWORD}
        return parse(conninfo.make_conninfo("", **said)).with_schema(self.schema).portable

    def connection(self, who: str) -> Database:
        """Return the connection of a login, opened once."""
        if who not in self._opened:
            self._opened[who] = connect(self.url_of(who))
        return self._opened[who]

    def close(self) -> None:
        """Close all connections."""
        for conn in self._opened.values():
            conn.close()


@contextmanager
def logins(server: Server, url: str) -> Iterator[Logins]:
    """Make the group roles of a schema and a login for each; nothing of it is left on the server."""
    assert server.superuser_url is not None
    schema = parse(url).schema
    made = Logins(server, schema)
    with connect(server.url_of(schema, superuser=True)) as superuser:
        create_roles(superuser, schema)
        for who in WHO:
            superuser.execute(f"create role {made.name_of(who)} login password '{PASSWORD}'".encode())
            if who in GROUPS:
                superuser.execute(f"grant {schema}_{who} to {made.name_of(who)}".encode())
        grant_application(superuser, schema, made.name_of("application"))
        try:
            yield made
        finally:
            made.close()
            drop_roles(superuser, [*map(made.name_of, WHO), *group_roles(schema)])


def drop_roles(superuser: psycopg.Connection, names: list[str]) -> None:
    """Drop roles with all that they have in this database, those that exist."""
    for name in names:
        superuser.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
        if superuser.execute("select from pg_roles where rolname = %s", [name]).rowcount:
            superuser.execute(f"drop owned by {name} cascade; drop role {name}".encode())
