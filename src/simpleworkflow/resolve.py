"""Which database: the one that is named, else DATABASE_URL or PG*, else the embedded PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg

from simpleworkflow import dburl, embedded
from simpleworkflow.database import connect
from simpleworkflow.errors import NotPermitted
from simpleworkflow.grants import create_owner, grant_application
from simpleworkflow.migrate import migrate, read_state
from simpleworkflow.settings import Settings

__all__ = ["Database", "resolve_database"]

# On the embedded server the tables belong to a role that nobody logs in as, so that its user cannot go
# around their guards.
EMBEDDED_OWNER = "workflow_owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where the tables are: ``conninfo`` for psycopg, the schema, and how to show it without its secrets."""

    conninfo: str = field(repr=False)
    schema: str
    shown: str
    portable: str = field(repr=False)
    is_embedded: bool
    is_pooled: bool


def resolve_database(database_url: str | None = None, *, settings: Settings | None = None) -> Database:
    """Return the database to use, starting and migrating the embedded server if it is that one.

    The embedded server lives while this process does.

    Raises:
        InvalidDatabaseUrl: a URL, or a setting of the environment, cannot be used.
        EmbeddedPostgresError: no database is named and the embedded server cannot be started.
    """
    settings = settings or Settings.from_environment()
    url = dburl.parse(database_url) if database_url else settings.database_url
    is_embedded = url is None
    if url is None:
        server = embedded.start(settings.home)
        url = dburl.parse(server.url).with_schema(settings.schema)
        _migrate_embedded(url, server.superuser_url)
    return Database(
        conninfo=url.conninfo,
        schema=url.schema,
        shown=url.shown,
        portable=url.portable,
        is_embedded=is_embedded,
        is_pooled=settings.pooler and not is_embedded,
    )


def _migrate_embedded(url: dburl.DatabaseUrl, superuser_url: str) -> None:
    with connect(url.conninfo) as conn:
        if _is_up_to_date(conn, url.schema):
            return
        names = {"dbname": conn.info.dbname, "role": conn.info.user}
    with connect(superuser_url, dbname=names["dbname"]) as conn:
        create_owner(conn, EMBEDDED_OWNER)
        migrate(conn, url.schema, owner=EMBEDDED_OWNER)
        grant_application(conn, url.schema, names["role"])


def _is_up_to_date(conn: psycopg.Connection, schema: str) -> bool:
    try:
        return not read_state(conn, schema).pending
    except NotPermitted:
        return False  # another process has migrated it this moment and not granted yet
