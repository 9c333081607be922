"""What each verb asks of the database and makes of the answers.  Pure: a plan yields statements.

A plan is a generator: it yields a statement, gets what that read, or has the error raised at the yield, and
returns the verb's answer.  ``follow`` and ``follow_async`` are all that is needed to carry one out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from simpleworkflow import statements
from simpleworkflow.codec import bound_text, encode_payload
from simpleworkflow.database import Statement
from simpleworkflow.errors import (
    InvalidInput,
    NotPermitted,
    RunNotFound,
    RunNotSucceeded,
    SchemaMismatch,
    WaitTimeout,
)
from simpleworkflow.migrate import SchemaState
from simpleworkflow.model import (
    ATTEMPTS_MAX,
    ENDED,
    REASON_BYTES_MAX,
    STATUSES,
    TYPE_CHARACTERS_MAX,
    NewRun,
    PrunableCount,
    Run,
    RunEvent,
    RunPage,
    Status,
    Submitted,
    check_duration,
    check_integer,
    check_time,
    shown,
)
from simpleworkflow.spans import current_traceparent
from simpleworkflow.statements.checking import schema_version

__all__ = [
    "Patterns",
    "Plan",
    "RunsToSubmit",
    "Statuses",
    "as_pattern",
    "as_reason",
    "as_run_id",
    "cancel",
    "check_schema",
    "count_prunable",
    "events",
    "follow",
    "follow_async",
    "get",
    "get_ended",
    "list_page",
    "new_runs",
    "prune",
    "reopen",
    "result_of",
    "submit",
]

T = TypeVar("T")
Plan = Generator[Statement[Any], Any, T]
RunsToSubmit = Iterable[NewRun | tuple[str, Any]]
Patterns = str | Sequence[str]
Statuses = Status | Sequence[Status]

PAGE_RUNS_MAX = 1000
_PATTERN = re.compile(r"[A-Za-z0-9_.-]+%?|%")
EVENTS_AT_ONCE = 10_000
# What a page, and a part of a count, looks at: about 10 ms each.
LISTED_AT_ONCE, COUNTED_AT_ONCE = 10_000, 10_000
# 110,000 runs a second are pruned, 40,000 in batches of 1,000; a transaction of 50 ms holds nobody up.
PRUNED_AT_ONCE = 5000


def follow(plan: Plan[T], run: Callable[[Statement[Any]], Any]) -> T:
    """Carry a plan out with ``run``; return its answer."""
    step: Callable[[Any], Statement[Any]] = plan.send
    answer = None
    try:
        while True:
            statement = step(answer)
            try:
                answer, step = run(statement), plan.send
            except Exception as error:  # noqa: BLE001 - the plan decides; what it does not catch comes out again
                answer, step = error, plan.throw
    except StopIteration as end:
        value: T = end.value
        return value


async def follow_async(plan: Plan[T], run: Callable[[Statement[Any]], Awaitable[Any]]) -> T:
    """Do what ``follow`` does, with an async ``run``."""
    step: Callable[[Any], Statement[Any]] = plan.send
    answer = None
    try:
        while True:
            statement = step(answer)
            try:
                answer, step = await run(statement), plan.send
            except Exception as error:  # noqa: BLE001 - the plan decides; what it does not catch comes out again
                answer, step = error, plan.throw
    except StopIteration as end:
        value: T = end.value
        return value


# ── submit ─────────────────────────────────────────────────────────────────────────────────────────


def new_runs(runs: RunsToSubmit) -> Iterator[NewRun]:
    """Return the runs, those given as ``(type, payload)`` too, one after the other.

    Raises:
        InvalidInput: something is neither, or refused; the message names its position.
    """
    for position, run in enumerate(runs):
        try:
            yield _as_new_run(run)
        except InvalidInput as error:
            raise InvalidInput(f"runs[{position}]: {error}") from error


def _as_new_run(run: object) -> NewRun:
    if isinstance(run, NewRun):
        return run
    if isinstance(run, tuple) and len(run) == 2:
        return NewRun(type=run[0], payload=run[1])
    raise InvalidInput(f"expected a NewRun or a tuple (type, payload), got {type(run).__name__}")


def submit(new: NewRun) -> Plan[Submitted]:
    """Record a run, unless its idempotency key has one."""
    submitted: Submitted = yield statements.submit_run(new, traceparent=current_traceparent())
    return submitted


# ── read ───────────────────────────────────────────────────────────────────────────────────────────


def get(run_id: UUID | str, *, as_text: bool = False) -> Plan[Run]:
    """Read one run; ``as_text``: its payload and result as ``JsonText``."""
    runs: list[Run] = yield statements.get_runs([as_run_id(run_id)], as_text=as_text)
    if not runs:
        raise RunNotFound(run_id)
    return runs[0]


def get_ended(run_id: UUID | str, timeout: float) -> Plan[Run]:
    """Read one run that has ended already."""
    try:
        run = yield from get(run_id)
    except RunNotFound:
        raise RunNotFound(run_id, was_awaited=True) from None
    if not run.has_ended:
        raise WaitTimeout(run_id, timeout)
    return run


def list_page(
    *,
    pattern: Patterns | None,
    status: Statuses | None,
    created_from: datetime | None,
    created_before: datetime | None,
    page: UUID | str | None,
    limit: int,
    payload: Any = None,
    look_at_all: bool = False,
    is_brief: bool = False,
) -> Plan[RunPage]:
    """Read a page of runs, ``is_brief``: without their contents; look at a bounded number, or until it is full."""
    check_integer("limit", limit, 1, PAGE_RUNS_MAX)
    for name, time in (("created_from", created_from), ("created_before", created_before)):
        if time is not None:
            check_time(name, time)
    patterns, statuses = as_patterns(pattern), as_statuses(status)
    before = None if page is None else as_run_id(page, "page")
    contained = None if payload is None else encode_payload(payload)
    runs, looked_at = list[Run](), 0
    while True:
        found: statements.RunsFound = yield statements.list_page(
            patterns=patterns,
            statuses=statuses,
            created_from=created_from,
            created_before=created_before,
            before=before,
            limit=limit - len(runs),
            looks=LISTED_AT_ONCE,
            payload=contained,
            is_brief=is_brief,
        )
        runs += found.runs
        looked_at, before = looked_at + found.looked_at, found.next_before
        if before is None or len(runs) == limit or not look_at_all:
            return RunPage(runs, before, looked_at, found.looked_back_to)


def events(run_id: UUID | str) -> Plan[list[RunEvent]]:
    """Read all events of a run in their order."""
    run_id = as_run_id(run_id)
    found: list[RunEvent] = []
    while True:
        after = found[-1].id if found else 0
        some: list[RunEvent] = yield statements.list_events(run_id, after=after, limit=EVENTS_AT_ONCE)
        found += some
        if len(some) < EVENTS_AT_ONCE:
            break
    if not found:
        yield from get(run_id)  # no history is possible, no run is an error
    return found


def result_of(run: Run) -> Any:
    """Return the result of a run that succeeded.

    Raises:
        RunNotSucceeded: it ended otherwise.
        NotPermitted: this role may not read results.
    """
    if "result" in run.hidden and run.status == "succeeded":
        raise NotPermitted(
            f"run {run.id} succeeded, but this role may not read results; grant select (result) to it"
        )
    if run.status != "succeeded":
        raise RunNotSucceeded(run.id, run.status, run.last_error)
    return run.result


# ── change ─────────────────────────────────────────────────────────────────────────────────────────


def cancel(run_id: UUID | str, reason: str | None) -> Plan[bool]:
    """Cancel a run; say whether this changed it."""
    run_id = as_run_id(run_id)
    changed: dict[UUID, bool] = yield statements.cancel_runs([run_id], as_reason(reason))
    return _changed(changed, run_id)


def reopen(run_id: UUID | str, attempts: int, reason: str | None) -> Plan[bool]:
    """Give a run that failed or was cancelled a new budget; say whether this changed it."""
    run_id = as_run_id(run_id)
    check_integer("attempts", attempts, 1, ATTEMPTS_MAX)
    changed: dict[UUID, bool] = yield statements.reopen_runs([run_id], attempts, as_reason(reason))
    return _changed(changed, run_id)


def _changed(changed: dict[UUID, bool], run_id: UUID) -> bool:
    if run_id not in changed:
        raise RunNotFound(run_id)
    return changed[run_id]


def prune(
    older_than: float | timedelta,
    *,
    pattern: Patterns | None,
    status: Statuses | None,
    limit: int | None,
    dry_run: bool,
) -> Plan[int]:
    """Delete what ended so long ago, batch after batch; say how many runs that were."""
    seconds = check_duration("older_than", older_than)
    patterns, statuses = as_patterns(pattern), _ended(status)
    if limit is not None:
        check_integer("limit", limit, 1, 2**63 - 1)
    if dry_run:
        return (yield from count_prunable(older_than, pattern, status, limit=limit, look_at_all=True)).runs
    pruned, reached_at = 0, None
    while limit is None or pruned < limit:
        size = PRUNED_AT_ONCE if limit is None else min(PRUNED_AT_ONCE, limit - pruned)
        batch: statements.Pruned = yield statements.prune_runs(
            seconds, patterns, statuses, limit=size, reached_at=reached_at
        )
        pruned, reached_at = pruned + batch.runs, batch.reached_at
        if batch.runs < size:
            break
    return pruned


def count_prunable(
    older_than: float | timedelta,
    pattern: Patterns | None,
    status: Statuses | None,
    *,
    limit: int | None = None,
    look_at_all: bool = False,
) -> Plan[PrunableCount]:
    """Count what there is to prune, as far as one look goes; or part after part, none of which takes long."""
    seconds = check_duration("older_than", older_than)
    patterns, statuses = as_patterns(pattern), _ended(status)
    runs, reached_at = 0, None
    while True:
        part: statements.Counted = yield statements.count_prunable_runs(
            seconds, patterns, statuses, looks=COUNTED_AT_ONCE, reached_at=reached_at
        )
        runs, reached_at = runs + part.runs, part.reached_at
        if limit is not None and runs >= limit:
            return PrunableCount(limit, is_exact=True)
        if reached_at is None or not look_at_all:
            return PrunableCount(runs, is_exact=reached_at is None)


def as_reason(reason: object) -> str | None:
    """Return a reason, cut to what is kept.

    Raises:
        InvalidInput: it is no text.
    """
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise InvalidInput(f"reason: expected text, got {shown(reason)}")
    return bound_text(reason, REASON_BYTES_MAX)


# ── checks ─────────────────────────────────────────────────────────────────────────────────────────


def as_run_id(value: object, name: str = "run id") -> UUID:
    """Return the id that ``value`` is or spells.

    Raises:
        InvalidInput: it is no UUID.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidInput(f"{name}: expected a UUID, got {shown(value)}") from None


def check_schema(schema: str) -> Plan[None]:
    """Do nothing if ``schema`` is the one that this package needs."""
    try:
        version = yield schema_version()
    except SchemaMismatch:
        version = 0
    except NotPermitted:
        return  # a role whose rights were written by hand need not read our bookkeeping
    if problem := SchemaState(schema, version).problem():
        raise SchemaMismatch(problem)


def as_patterns(pattern: Patterns | None) -> list[str] | None:
    """Return the patterns that ``pattern`` is, None for all.

    Raises:
        InvalidInput: one is neither a type nor a prefix that ends in ``%``.
    """
    if pattern is None:
        return None
    return [as_pattern(one) for one in ([pattern] if isinstance(pattern, str) else pattern)]


def as_pattern(value: object) -> str:
    """Return the pattern that ``value`` is.

    Raises:
        InvalidInput: it is neither a type nor a prefix that ends in ``%``.
    """
    if not isinstance(value, str) or len(value) > TYPE_CHARACTERS_MAX or _PATTERN.fullmatch(value) is None:
        raise InvalidInput(f"pattern: expected a type, or a prefix that ends in %, got {shown(value)}")
    return value


def as_statuses(status: Statuses | None) -> list[Status] | None:
    """Return the statuses that ``status`` is, None for all.

    Raises:
        InvalidInput: one is none of them.
    """
    if status is None:
        return None
    statuses: list[Status] = [status] if isinstance(status, str) else list(status)
    for one in statuses:
        if one not in STATUSES:
            raise InvalidInput(f"status: expected one of {', '.join(STATUSES)}, got {shown(one)}")
    return statuses


def _ended(status: Statuses | None) -> list[Status] | None:
    statuses = as_statuses(status)
    if alive := [one for one in statuses or () if one not in ENDED]:
        raise InvalidInput(f"status: only runs that have ended can be pruned, got {shown(alive[0])}")
    return statuses
