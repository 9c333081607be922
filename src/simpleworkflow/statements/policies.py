"""What types keep: their events, their succeeded runs."""

from __future__ import annotations

from datetime import UTC

from simpleworkflow.database import Rows, Statement
from simpleworkflow.model import Policy


def set_policy(pattern: str, *, keeps_events: bool, keeps_succeeded: bool) -> Statement[bool]:
    """Set the policy of a pattern; return whether that changed anything."""
    return Statement(
        "select {schema}.set_policy(%s::text, %s::boolean, %s::boolean)",
        (pattern, keeps_events, keeps_succeeded),
        lambda rows: bool(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def drop_policy(pattern: str) -> Statement[bool]:
    """End the policy of a pattern; return whether there was one."""
    return Statement(
        "select {schema}.drop_policy(%s::text)",
        (pattern,),
        lambda rows: bool(rows[0][0]),
        is_repeatable=True,
        is_change=True,
    )


def list_policies() -> Statement[list[Policy]]:
    """Return the policies that apply now, the least specific first."""
    return Statement(
        "select pattern, keeps_events, keeps_succeeded, applies_from, set_by from {schema}.list_policies()",
        (),
        _read_policies,
        is_repeatable=True,
    )


def _read_policies(rows: Rows) -> list[Policy]:
    return [
        Policy(pattern, keeps_events, keeps_succeeded, applies_from.astimezone(UTC), set_by)
        for pattern, keeps_events, keeps_succeeded, applies_from, set_by in rows
    ]
