"""What the verbs of operations ask: one change of all the runs that match.  Pure: a plan yields statements."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from simpleworkflow import statements
from simpleworkflow.client.verbs import (
    COUNTED_AT_ONCE,
    PAGE_RUNS_MAX,
    Patterns,
    Plan,
    Statuses,
    as_patterns,
    as_reason,
    as_run_id,
    as_statuses,
)
from simpleworkflow.errors import InvalidInput, OperationNotFound
from simpleworkflow.model import (
    ATTEMPTS_MAX,
    Status,
    check_integer,
    check_time,
    shown,
)
from simpleworkflow.operation import (
    OPERABLE,
    OPERATION_PATTERNS_MAX,
    MatchedCount,
    Operation,
    OperationKind,
)

__all__ = ["count_operable", "operate", "operation", "operations", "stop_operation"]


def operate(
    kind: OperationKind,
    *,
    patterns: Patterns,
    statuses: Statuses | None,
    created_from: datetime | None,
    created_before: datetime | None,
    reason: str,
    attempts: int,
) -> Plan[Operation]:
    """Ask for an operation."""
    checked, wanted = _filter(kind, patterns, statuses, created_from, created_before)
    check_integer("attempts", attempts, 1, ATTEMPTS_MAX)
    if not (why := (as_reason(reason) or "").strip()):
        raise InvalidInput("reason: expected why, got nothing; it is kept with each run that is changed")
    operation: Operation = yield statements.operate(
        kind,
        patterns=checked,
        statuses=wanted,
        created_from=created_from,
        created_before=created_before,
        reason=why,
        attempts=attempts,
    )
    return operation


def count_operable(
    kind: OperationKind,
    *,
    patterns: Patterns,
    statuses: Statuses | None,
    created_from: datetime | None,
    created_before: datetime | None,
    look_at_all: bool,
) -> Plan[MatchedCount]:
    """Count the runs that an operation would change, as far as one look goes; or part after part."""
    checked, wanted = _filter(kind, patterns, statuses, created_from, created_before)
    matched, walk = 0, None
    while True:
        part: statements.Operable = yield statements.count_operable(
            kind,
            patterns=checked,
            statuses=wanted,
            created_from=created_from,
            created_before=created_before,
            walk=walk,
            looks=COUNTED_AT_ONCE,
        )
        matched, walk = matched + part.runs, part.walk
        if walk is None or not look_at_all:
            return MatchedCount(matched, is_exact=walk is None)


def operations(limit: int) -> Plan[list[Operation]]:
    """Read operations, the last asked for first."""
    check_integer("limit", limit, 1, PAGE_RUNS_MAX)
    found: list[Operation] = yield statements.list_operations(limit=limit)
    return found


def operation(operation_id: UUID | str) -> Plan[Operation]:
    """Read one operation."""
    operation_id = as_run_id(operation_id, "operation id")
    found: list[Operation] = yield statements.list_operations(operation_id, limit=1)
    if not found:
        raise OperationNotFound(operation_id)
    return found[0]


def stop_operation(operation_id: UUID | str) -> Plan[bool]:
    """Stop an operation; say whether this changed it."""
    operation_id = as_run_id(operation_id, "operation id")
    changed: bool | None = yield statements.stop_operation(operation_id)
    if changed is None:
        raise OperationNotFound(operation_id)
    return changed


def _filter(
    kind: OperationKind,
    patterns: Patterns,
    statuses: Statuses | None,
    created_from: datetime | None,
    created_before: datetime | None,
) -> tuple[list[str], list[Status] | None]:
    if kind not in OPERABLE:
        raise InvalidInput(f"kind: expected cancel or reopen, got {shown(kind)}")
    checked, wanted = as_patterns(patterns), as_statuses(statuses)
    if not checked or len(checked) > OPERATION_PATTERNS_MAX:
        raise InvalidInput(
            f"patterns: expected 1 to {OPERATION_PATTERNS_MAX}, got {len(checked or ())}; all types are %"
        )
    if wanted is not None and (not wanted or not set(wanted) <= set(OPERABLE[kind])):
        raise InvalidInput(
            f"statuses: expected some of {', '.join(OPERABLE[kind])} to {kind}, got {', '.join(wanted) or 'none'}"
        )
    for name, time in (("created_from", created_from), ("created_before", created_before)):
        if time is not None:
            check_time(name, time)
    return checked, wanted
