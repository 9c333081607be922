"""What the verbs of who watches over runs ask: counts, types, pauses, policies.  Pure: a plan yields statements."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from simpleworkflow import statements
from simpleworkflow.client.verbs import Plan, as_pattern, as_reason, as_run_id
from simpleworkflow.database import Statement
from simpleworkflow.errors import InvalidInput, RunNotFound
from simpleworkflow.model import Pause, Policy, Run, Stats, TypeSummary, check_integer, shown
from simpleworkflow.summaries import Why, WorkerSummary

__all__ = [
    "drop_policy",
    "pause",
    "pauses",
    "policies",
    "recount",
    "resume",
    "runs_held_by",
    "runs_with_key",
    "set_policy",
    "stats",
    "types",
    "why",
    "workers",
]

T = TypeVar("T")

WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX = 10, 30 * 24 * 3600
WORKERS_MAX, HOLDS_MAX = 1000, 100


def stats(window_seconds: float, *, due: str | None = None) -> Plan[Stats]:
    """Read counts, rates and what is due; where nobody has folded for long, fold first.

    ``due``: what ``look_due`` has found, else it is looked for now.
    """
    check_integer("window_seconds", window_seconds, WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX)
    found: Stats = yield from _folded(statements.read_stats(window_seconds, due=due))
    return found


def types(window_seconds: float, *, due: str | None = None) -> Plan[list[TypeSummary]]:
    """Read a summary of each type; otherwise as ``stats``."""
    check_integer("window_seconds", window_seconds, WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX)
    found: list[TypeSummary] = yield from _folded(statements.list_types(window_seconds, due=due))
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


# ── runs by what else is known of them ─────────────────────────────────────────────────────────────


def runs_with_key(key: str) -> Plan[list[Run]]:
    """Read the run that has an idempotency key, as for a list; empty: none has."""
    return (yield from _brief_runs(statements.find_key(key)))


def runs_held_by(worker: str, limit: int) -> Plan[list[Run]]:
    """Read up to ``limit`` runs that a worker holds, as for a list, newest first."""
    return (yield from _brief_runs(statements.find_held(worker, limit)))


def _brief_runs(finding: Statement[list[UUID]]) -> Plan[list[Run]]:
    ids: list[UUID] = yield finding
    runs: list[Run] = (yield statements.get_runs(ids, is_brief=True)) if ids else []
    return sorted(runs, key=lambda run: run.id, reverse=True)


# ── workers ────────────────────────────────────────────────────────────────────────────────────────


def why(run_id: UUID | str, *, shows_contents: bool = True) -> Plan[Why]:
    """Ask why a run is not running; ``shows_contents``: for somebody who may read errors and reasons."""
    found: Why | None = yield statements.why(as_run_id(run_id), shows_contents=shows_contents)
    if found is None:
        raise RunNotFound(run_id)
    return found


def workers(limit: int, holds: int) -> Plan[list[WorkerSummary]]:
    """Read who the workers are."""
    check_integer("limit", limit, 1, WORKERS_MAX)
    check_integer("holds", holds, 0, HOLDS_MAX)
    found: list[WorkerSummary] = yield statements.list_workers(limit=limit, holds=holds)
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
