"""Who may do what with a schema: the owner, an application, four group roles.

Roles belong to the whole server while schemas are many, so the group roles carry the schema's name
(``workflow_producer``), and are made only when somebody asks for them.  Once they have rights, each migration
renews these.
"""

from __future__ import annotations

import psycopg

from simpleworkflow.errors import InvalidInput, NotPermitted
from simpleworkflow.model import shown
from simpleworkflow.sql import GROUPS, load_script

__all__ = [
    "create_owner",
    "create_roles",
    "grant_application",
    "grants_sql",
    "group_roles",
    "renew_roles",
    "roles_in_use",
    "roles_sql",
    "take_turns",
]

_APPLICATION = ("producer", "worker", "operator", "application")
# PostgreSQL cuts names after 63 bytes: the four of a longer one would be one role.
_SCHEMA_LENGTH_MAX = 63 - len("_producer")
_IN_USE = """
select name from unnest(%s::text[]) with ordinality as role (name, position)
 where exists (select from pg_catalog.pg_namespace, aclexplode(nspacl)
                where nspname = %s and grantee = to_regrole(role.name) and privilege_type = 'USAGE')
 order by position
"""
_MEMBERS = """
select coalesce(array_agg(member::regrole::text order by 1), '{}')
  from pg_catalog.pg_auth_members where roleid = to_regrole(%s)
"""


def take_turns(conn: psycopg.Connection, schema: str) -> None:
    """Wait until nobody else migrates ``schema`` or grants in it; it lasts until the transaction ends."""
    conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema}.migrate"])


def create_owner(conn: psycopg.Connection, owner: str) -> None:
    """Make sure that there is a role ``owner`` that cannot log in and may create schemas in this database."""
    conn.execute(load_script("owner", owner=owner).encode())


# ── an application ─────────────────────────────────────────────────────────────────────────────────


def grant_application(conn: psycopg.Connection, schema: str, role: str) -> None:
    """Let ``role`` use the tables and functions of ``schema`` without owning them.

    The guard then binds it without exception; a role that owns the tables could drop the triggers.  To be
    done again after a migration that adds functions; twice does no harm.

    Raises:
        InvalidInput: there is no such role.
        InsufficientPrivilege: psycopg's; the role of ``conn`` may not grant all of it.  Nothing is granted then.
    """
    script = grants_sql(schema, role)
    with conn.transaction():
        # Two grants on one function at once would end in "tuple concurrently updated".
        take_turns(conn, schema)
        if conn.execute("select from pg_catalog.pg_roles where rolname = %s", [role]).rowcount == 0:
            raise InvalidInput(f"role {shown(role)} does not exist; create it first, or name another")
        _execute_strictly(conn, script)


def grants_sql(schema: str, role: str) -> str:
    """Return the SQL with which ``grant_application`` lets ``role`` use ``schema``.

    Raises:
        InvalidInput: ``role`` cannot be the name of a role, or is everybody (``public``).
    """
    if (
        not role or not role.isprintable() or role in ("public", "none")
    ):  # also in quotes they mean nobody's name
        raise InvalidInput(f"role: expected the name of a role, got {shown(role)}")
    quoted = '"' + role.replace('"', '""') + '"'
    return "".join(load_script(f"grants/{part}", schema=schema, role=quoted) for part in _APPLICATION)


# ── the group roles ────────────────────────────────────────────────────────────────────────────────


def group_roles(schema: str) -> list[str]:
    """Return the names of the group roles of ``schema``, in the order of ``GROUPS``.

    Raises:
        InvalidInput: the name of the schema is too long for them.
    """
    if len(schema) > _SCHEMA_LENGTH_MAX:
        raise InvalidInput(
            f"schema {schema!r}: expected at most {_SCHEMA_LENGTH_MAX} characters for the names of its roles, "
            f"got {len(schema)}; grant to roles of your own with --grant-to"
        )
    return [f"{schema}_{group}" for group in GROUPS]


def create_roles(conn: psycopg.Connection, schema: str) -> dict[str, list[str]]:
    """Make the group roles that are missing, and grant to all four; return each with its members.

    Raises:
        InvalidInput: the name of the schema is too long, or a role of that name has rights elsewhere.
        NotPermitted: the role of ``conn`` may not create roles, or not grant.  Nothing is done then.
    """
    names = group_roles(schema)
    try:
        with conn.transaction():
            take_turns(conn, schema)
            _execute_strictly(conn, roles_sql(schema))
    except psycopg.errors.DuplicateObject as error:
        diag = error.diag
        raise InvalidInput(f"{diag.message_primary}; {diag.message_hint}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        reason = error.diag.message_primary or str(error)
        raise NotPermitted(
            f"roles {', '.join(names)} were not made: {reason}; let a role that may (a DBA's) run what "
            "`wf migrate --roles --sql` prints"
        ) from error
    return {name: _members(conn, name) for name in names}


def roles_sql(schema: str) -> str:
    """Return the SQL with which ``create_roles`` makes the roles and grants.

    Raises:
        InvalidInput: the name of the schema is too long.
    """
    group_roles(schema)
    return load_script("roles", schema=schema) + "".join(_grants_of(schema, group) for group in GROUPS)


def roles_in_use(conn: psycopg.Connection, schema: str) -> list[str]:
    """Return which of the group roles have rights in ``schema``."""
    if len(schema) > _SCHEMA_LENGTH_MAX:
        return []
    return [name for (name,) in conn.execute(_IN_USE.encode(), [group_roles(schema), schema])]


def renew_roles(conn: psycopg.Connection, schema: str) -> None:
    """Grant anew to those group roles that have rights in ``schema``: a migration may have added functions."""
    conn.execute(renewal_sql(conn, schema).encode())


def renewal_sql(conn: psycopg.Connection, schema: str) -> str:
    """Return the SQL with which ``renew_roles`` does it; empty where no group role has rights."""
    return "".join(_grants_of(schema, name.removeprefix(f"{schema}_")) for name in roles_in_use(conn, schema))


def _grants_of(schema: str, group: str) -> str:
    return load_script(f"grants/{group}", schema=schema, role=f"{schema}_{group}")


def _members(conn: psycopg.Connection, role: str) -> list[str]:
    row = conn.execute(_MEMBERS.encode(), [role]).fetchone()
    return list(row[0]) if row else []


def _execute_strictly(conn: psycopg.Connection, script: str) -> None:
    """Execute grants; raise what PostgreSQL only warns of: that some of them it did not make."""
    warnings: list[str | None] = []

    def remember(warning: psycopg.errors.Diagnostic) -> None:
        warnings.append(warning.message_primary)  # it can be read only now

    conn.execute("set local client_min_messages = warning")
    conn.add_notice_handler(remember)
    try:
        conn.execute(script.encode())
    finally:
        conn.remove_notice_handler(remember)
    if warnings:
        raise psycopg.errors.InsufficientPrivilege(
            f"{warnings[0]}; connect as the role that owns the schema and its tables"
        )
