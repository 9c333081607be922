"""The examination of a database: each check is one query in ``sql/health``, asked on its own.

A query returns rows of severity, found, why, remedy; no row means that all is well.  Each has a transaction of
its own, so that one that is refused or too slow is a finding and not the end of the examination.  They
read only what PostgreSQL has had since 14 and, but for those of the tables, no table of ours: a schema that is
missing, older or newer is examined as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from simpleworkflow.errors import NotPermitted, SchemaMismatch
from simpleworkflow.health.finding import Finding
from simpleworkflow.health.objects import missing_objects
from simpleworkflow.migrate import SchemaState, read_state
from simpleworkflow.sql import load_script

CHECK_SECONDS_MAX = 10

# What is asked, in this order, and what is said when nothing was found.
SERVER_CHECKS = {
    "server": "",
    "standby": "the server takes writes",
    "settings": "fsync, synchronous_commit, autovacuum, time-outs and isolation are as they should be",
    "keepalives": "the server notices a client's machine that has gone",
    "connections": "",
    "statistics": "this role sees what sessions do",
    "idle_transactions": "no session has been idle in a transaction for long",
    "long_transactions": "no transaction has been open for long",
    "prepared_transactions": "no prepared transaction is left behind",
    "replication_slots": "no replication slot is left behind",
}
SCHEMA_CHECKS = {
    "locks": "nobody has waited for our tables for long",
    "grants": "",
    "vacuum": "few dead rows",
    "due_runs": "no due run has waited for long",
    "leases": "no lease has lapsed unnoticed",
    "counts": "what is counted is what is there, as far as a glance tells",
}


def examine(conn: psycopg.Connection[Any], schema: str, *, long_seconds: float) -> Iterator[Finding]:
    """Yield what is to be said about the server, the schema and its runs, one check after the other.

    What lasts longer than ``long_seconds`` counts as long.  ``conn`` must be in autocommit mode; any role will do,
    also behind a transaction pooler.
    """
    for check, well in SERVER_CHECKS.items():
        yield from _ask(conn, check, well, schema, long_seconds)
    state, findings = _schema_state(conn, schema)
    yield from findings
    if state is not None and state.version == 0:
        return
    if state is not None and state.version == state.latest:
        yield from _objects(conn, schema)
    for check, well in SCHEMA_CHECKS.items():
        yield from _ask(conn, check, well, schema, long_seconds)


def _ask(
    conn: psycopg.Connection[Any], check: str, well: str, schema: str, long_seconds: float
) -> list[Finding]:
    name = check.replace("_", " ")
    try:
        rows = _rows(conn, check, schema, long_seconds)
    except psycopg.Error as error:
        return [unanswered(name, error)]
    findings = [
        Finding(name, severity, found, *((None, None) if severity == "ok" else (why, remedy)))
        for severity, found, why, remedy in rows
    ]
    return findings or [Finding(name, "ok", well)]


def _rows(
    conn: psycopg.Connection[Any], check: str, schema: str, long_seconds: float
) -> list[tuple[Any, ...]]:
    script = load_script(f"health/{check}", schema=schema, long_seconds=f"{long_seconds:.3f}")
    with conn.transaction():
        if check in SCHEMA_CHECKS:  # the others are quick, and one of them tells the role's own limits
            conn.execute(load_script("health/limits", seconds=str(CHECK_SECONDS_MAX)).encode())
        return conn.execute(script.encode()).fetchall()


def unanswered(name: str, error: psycopg.Error) -> Finding:
    """Return the finding that a check could not be made."""
    if error.sqlstate is None:  # the connection is gone: there is nothing left to examine
        raise error
    reason = (error.diag.message_primary or type(error).__name__).split("\n", 1)[0]
    return Finding(
        name,
        "notice",
        f"could not be checked: {reason}",
        "what it would have told is not known",
        "ask again as the role that owns the tables, or as one in pg_monitor",
    )


def _schema_state(conn: psycopg.Connection[Any], schema: str) -> tuple[SchemaState | None, list[Finding]]:
    try:
        state = read_state(conn, schema)
    except SchemaMismatch as error:
        fact, _, remedy = str(error).partition("; ")
        return None, [
            Finding("schema", "error", fact, "its functions may not be those that were tested", remedy)
        ]
    except NotPermitted as error:
        fact, _, remedy = str(error).partition("; ")
        why = "which version the schema has is not known"
        return None, [Finding("schema", "notice", f"could not be checked: {fact}", why, remedy)]
    except psycopg.Error as error:
        return None, [unanswered("schema", error)]
    problem = state.problem()
    if problem is None:
        return state, [Finding("schema", "ok", f"schema {schema} is at version {state.version}, up to date")]
    fact, _, remedy = problem.partition("; ")
    why = "this version of the package cannot work with it"
    return state, [Finding("schema", "error", fact, why, remedy.removeprefix("run ").strip("`"))]


def _objects(conn: psycopg.Connection[Any], schema: str) -> list[Finding]:
    try:
        rows = _rows(conn, "objects", schema, 0)
    except psycopg.Error as error:
        return [unanswered("objects", error)]
    findings = list(missing_objects(schema, rows))
    return findings or [
        Finding("objects", "ok", "tables, indexes, constraints, triggers and functions are all there")
    ]
