"""What is asked about a database before it is trusted with work."""

from __future__ import annotations

from simpleworkflow.database import Statement


def schema_version() -> Statement[int]:
    """Return the version of the schema's last migration; it fails where there is no such schema."""
    return Statement(
        "select coalesce(max(version), 0) from {schema}.workflow_migration",
        (),
        lambda rows: int(rows[0][0]),
        is_repeatable=True,
    )


def mark_transaction(mark: str) -> Statement[None]:
    """Leave a mark that lasts as long as the present transaction."""
    return Statement("select set_config('workflow.mark', %s::text, true)", (mark,), lambda _: None)


def act_for(name: str) -> Statement[None]:
    """Say in whose name this transaction changes what it changes: its events tell it as ``on_behalf_of``."""
    return Statement(
        "select set_config('workflow.on_behalf_of', %s::text, true)",
        (name,),
        lambda _: None,
        is_repeatable=True,
    )


def is_same_transaction(mark: str) -> Statement[bool]:
    """Return whether ``mark`` was left in the present transaction; outside of one it never is."""
    return Statement(
        "select current_setting('workflow.mark', true) is not distinct from %s::text",
        (mark,),
        lambda rows: bool(rows[0][0]),
    )
