"""The sessions that clients have at the server, and how to end them."""

from __future__ import annotations

from builders import Database


def sessions(db: Database) -> list[int]:
    """Return the process ids of the sessions whose last statement was about the schema of the test."""
    rows = db.execute(
        "select pid from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
        " and application_name = 'simpleworkflow' and query like %s",
        [f"%{db.schema}%"],
    )
    return [row[0] for row in rows]


def kill_sessions(db: Database) -> int:
    """End those sessions, and return how many there were, when they are gone."""
    pids = sessions(db)
    for pid in pids:
        db.execute("select pg_terminate_backend(%s, 5000)", [pid])
    return len(pids)
