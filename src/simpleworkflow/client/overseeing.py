"""What the verbs of who watches over runs ask: counts, types, pauses, policies.  Pure: a plan yields statements."""

from __future__ import annotations

from typing import TypeVar

from simpleworkflow import statements
from simpleworkflow.client.verbs import Plan, as_pattern, as_reason
from simpleworkflow.database import Statement
from simpleworkflow.errors import InvalidInput
from simpleworkflow.model import Pause, Policy, Stats, TypeSummary, check_integer, shown

__all__ = [
    "drop_policy",
    "pause",
    "pauses",
    "policies",
    "recount",
    "resume",
    "set_policy",
    "stats",
    "types",
]

T = TypeVar("T")

WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX = 10, 30 * 24 * 3600


def stats(window_seconds: float) -> Plan[Stats]:
    """Read counts, rates and what is due; where nobody has folded for long, fold first."""
    check_integer("window_seconds", window_seconds, WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX)
    found: Stats = yield from _folded(statements.read_stats(window_seconds))
    return found


def types(window_seconds: float) -> Plan[list[TypeSummary]]:
    """Read a summary of each type; where nobody has folded for long, fold first."""
    check_integer("window_seconds", window_seconds, WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX)
    found: list[TypeSummary] = yield from _folded(statements.list_types(window_seconds))
    return found


def _folded(reading: Statement[T | None]) -> Plan[T]:
    while True:
        found: T | None = yield reading
        if found is not None:
            return found
        yield statements.fold_counts()


def recount() -> Plan[int]:
    """Put right what was counted wrongly; say how many counts that were."""
    corrected: int = yield statements.recount_runs()
    return corrected


def pause(pattern: str, reason: str | None) -> Plan[bool]:
    """Let nothing that a pattern covers be claimed; say whether that changed anything."""
    changed: bool = yield statements.pause_pattern(as_pattern(pattern), as_reason(reason))
    return changed


def resume(pattern: str) -> Plan[bool]:
    """Let what a paused pattern covers be claimed again; say whether that changed anything."""
    changed: bool = yield statements.resume_pattern(as_pattern(pattern))
    return changed


def pauses() -> Plan[list[Pause]]:
    """Read the patterns that are paused."""
    found: list[Pause] = yield statements.list_pauses()
    return found


# ── policies ───────────────────────────────────────────────────────────────────────────────────────


def set_policy(pattern: str, keeps_events: bool, keeps_succeeded: bool) -> Plan[bool]:
    """Say what a pattern keeps; say whether that changed anything."""
    for name, value in (("keeps_events", keeps_events), ("keeps_succeeded", keeps_succeeded)):
        if not isinstance(value, bool):
            raise InvalidInput(f"{name}: expected True or False, got {shown(value)}")
    changed: bool = yield statements.set_policy(
        as_pattern(pattern), keeps_events=keeps_events, keeps_succeeded=keeps_succeeded
    )
    return changed


def drop_policy(pattern: str) -> Plan[bool]:
    """Let a pattern have no policy of its own; say whether it had one."""
    changed: bool = yield statements.drop_policy(as_pattern(pattern))
    return changed


def policies() -> Plan[list[Policy]]:
    """Read the policies that apply."""
    found: list[Policy] = yield statements.list_policies()
    return found
