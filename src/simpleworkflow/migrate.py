"""Bring a schema up to date: apply, check, or print the migrations.

Each migration is one transaction under an advisory lock, so any number of processes may migrate at once
and a killed one leaves nothing half done.  DDL waits at most one second for its locks, then gives way and
tries again: a queue behind a waiting ACCESS EXCLUSIVE lock would stall every claim.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from simpleworkflow.errors import NotPermitted, SchemaMismatch
from simpleworkflow.grants import renew_roles, take_turns
from simpleworkflow.sql import Migration, load_migrations

LOCK_TIMEOUT_SECONDS = 1
LOCK_ATTEMPTS_MAX = 30
# Nothing that somebody has planted in another schema is found while a superuser migrates.
_SEARCH_PATH = "set local search_path = pg_catalog, pg_temp"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a schema has (``version``, 0: nothing) and what it lacks of what this package carries."""

    schema: str
    version: int

    @property
    def latest(self) -> int:
        """The version that this package needs."""
        return load_migrations(self.schema)[-1].version

    @property
    def pending(self) -> list[Migration]:
        """The migrations that are still to be applied, in order."""
        return [migration for migration in load_migrations(self.schema) if migration.version > self.version]

    def problem(self) -> str | None:
        """Return why this version of the package cannot work with the schema, with the remedy, or None."""
        if self.version == 0:
            return f"schema {self.schema!r} has no workflow tables; run `wf migrate`"
        if self.version < self.latest:
            return (
                f"schema {self.schema!r} is at version {self.version}, this package needs {self.latest}; "
                "run `wf migrate`"
            )
        if self.version > self.latest:
            return (
                f"schema {self.schema!r} is at version {self.version}, newer than this package knows "
                f"({self.latest}); upgrade simpleworkflow"
            )
        return None


def read_state(conn: psycopg.Connection, schema: str) -> SchemaState:
    """Return what ``schema`` has; it need not exist.

    Raises:
        SchemaMismatch: a migration that was applied is not the one that this package carries.
        NotPermitted: the role of ``conn`` may not look.
    """
    applied = _applied(conn, schema)
    for migration in load_migrations(schema):
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise SchemaMismatch(
                f"schema {schema!r}: migration {migration.version} was applied from another text than this "
                "package carries; install the version of simpleworkflow that made the schema, or restore it"
            )
    return SchemaState(schema, max(applied, default=0))


def check_schema(conn: psycopg.Connection, schema: str) -> None:
    """Do nothing if ``schema`` is the one that this package needs.

    Raises:
        SchemaMismatch: it is missing, older or newer; the message says what to do.
    """
    if problem := read_state(conn, schema).problem():
        raise SchemaMismatch(problem)


def _say_nothing(_: str) -> None:
    pass


def migrate(
    conn: psycopg.Connection,
    schema: str,
    *,
    to: int | None = None,
    owner: str | None = None,
    report: Callable[[str], None] = _say_nothing,
) -> list[Migration]:
    """Apply what ``schema`` lacks, up to version ``to``; return the migrations that this call applied.

    ``conn`` must be in autocommit mode.  The objects belong to ``owner``, a role that ``create_owner`` has
    made, else to the role of ``conn``.  Safe when several run at once: the others wait, then find
    nothing to do.

    Raises:
        SchemaMismatch: the schema is newer than this package, ``to`` names no migration, or the locks
            could not be had within about a minute.
    """
    migrations = load_migrations(schema)
    if to is not None and to not in {migration.version for migration in migrations}:
        raise SchemaMismatch(f"expected a version from 1 to {migrations[-1].version}, got {to}")
    # Before anything is changed: nothing may be built on what this package does not know.
    state = read_state(conn, schema)
    if state.version > state.latest:
        raise SchemaMismatch(state.problem() or "")
    applied = []
    for migration in migrations:
        if to is not None and migration.version > to:
            break
        if _apply_patiently(conn, schema, migration, owner):
            report(f"applied {migration.version:04} {migration.name}")
            applied.append(migration)
    read_state(conn, schema)
    return applied


def migration_sql(schema: str, *, after: int = 0, to: int | None = None) -> str:
    """Return the SQL that ``migrate`` would run, for a role that may, as one script for psql."""
    scripts = [
        f"-- {migration.version:04} {migration.name}\nbegin;\n{_SEARCH_PATH};\n{_bookkeeping(schema)};\n"
        f"{migration.sql}\n{_record(schema, migration)};\ncommit;\n"
        for migration in load_migrations(schema)
        if migration.version > after and (to is None or migration.version <= to)
    ]
    return "\n".join(["\\set ON_ERROR_STOP on", *scripts])


def _apply_patiently(conn: psycopg.Connection, schema: str, migration: Migration, owner: str | None) -> bool:
    for attempt in range(LOCK_ATTEMPTS_MAX):
        try:
            return _apply(conn, schema, migration, owner)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            time.sleep(min(2.0, 0.1 * 2**attempt))
    raise SchemaMismatch(
        f"schema {schema!r}: migration {migration.version} could not get its locks within "
        f"{LOCK_ATTEMPTS_MAX} attempts; end the long transactions on workflow_run and run it again"
    )


def _apply(conn: psycopg.Connection, schema: str, migration: Migration, owner: str | None) -> bool:
    with conn.transaction():
        # A role may default to serializable: the snapshot would be older than the wait for the lock.
        conn.execute("set transaction isolation level read committed")
        take_turns(conn, schema)
        if migration.version <= max(_applied(conn, schema), default=0):
            return False
        if owner is not None:
            conn.execute(f"set local role {owner}".encode())
        conn.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'".encode())
        conn.execute(_SEARCH_PATH.encode())
        conn.execute(_bookkeeping(schema).encode())
        conn.execute(migration.sql.encode())
        conn.execute(_record(schema, migration).encode())
        if migration.version == load_migrations(schema)[-1].version:
            renew_roles(conn, schema)
    return True


def _applied(conn: psycopg.Connection, schema: str) -> dict[int, str]:
    # Not to_regclass: it may answer from what the session remembers of the time before it waited for the lock.
    table = conn.execute(
        "select from pg_catalog.pg_class as class join pg_catalog.pg_namespace as schema"
        " on schema.oid = class.relnamespace where schema.nspname = %s and class.relname = 'workflow_migration'",
        [schema],
    )
    if table.rowcount == 0:
        return {}
    try:
        rows = conn.execute(f"select version, checksum from {schema}.workflow_migration".encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermitted(
            f"{error.diag.message_primary}; role {conn.info.user!r} has no rights in schema {schema!r}: make it a "
            "member of a role of `wf migrate --roles`, or name it with `wf migrate --grant-to`, as the owner"
        ) from error
    return dict(rows.fetchall())


def _bookkeeping(schema: str) -> str:
    # Not plain `if not exists` for the schema: that needs the right to create one even where it is there.
    return (
        f"do $do$ begin if to_regnamespace('{schema}') is null then create schema {schema}; end if; end $do$;\n"
        f"create table if not exists {schema}.workflow_migration (\n"
        "  version int primary key, name text not null, checksum text not null,\n"
        "  applied_at timestamptz not null default now())"
    )


def _record(schema: str, migration: Migration) -> str:
    return (
        f"insert into {schema}.workflow_migration (version, name, checksum)\n"
        f"values ({migration.version}, '{migration.name}', '{migration.checksum}')"
    )
