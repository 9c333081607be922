"""How a refusal reads: one clear line, wherever it comes from."""

from __future__ import annotations

import psycopg

from builders import Database


def refusal(db: Database, statement: str, *values: object) -> tuple[str | None, str]:
    """Execute a statement that should be refused; return its SQLSTATE and its message."""
    try:
        with db.transaction():
            db.execute(statement.encode(), values)
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary or ""
    return None, ""


def is_one_clear_line(message: str) -> bool:
    """Return whether a message can be shown as it is: one line, not long, nothing that a terminal obeys."""
    return 0 < len(message) < 400 and message.isprintable()
