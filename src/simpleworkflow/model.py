"""What the tables hold, as values: runs, events, new runs, patterns.  Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

from simpleworkflow.errors import InvalidInput

__all__ = [
    "ENDED",
    "RATES",
    "STATUSES",
    "NewRun",
    "Pause",
    "Percentiles",
    "Policy",
    "PrunableCount",
    "Run",
    "RunEvent",
    "RunPage",
    "Stats",
    "StatsPoint",
    "Status",
    "Submitted",
    "TypeSummary",
    "matches",
    "narrow_patterns",
]

# The limits of the contract.  The database enforces them (sql/migrations), these are its numbers for those who check
# earlier; docs/reference/limits.md tells each, and tests/input tries each at the limit and one beyond.
TYPE_CHARACTERS_MAX = 200
KEY_BYTES_MAX = 400
JSON_BYTES_MAX = 1_048_576  # of a payload or a result, as the database prints it
DEPTH_MAX = 100  # levels of arrays and objects
ERROR_BYTES_MAX = 65_536
PROGRESS_CHARACTERS_MAX = 1000
REASON_BYTES_MAX = 8000
ATTEMPTS_MAX = 1000
PRIORITY_MIN, PRIORITY_MAX = -(2**31), 2**31 - 1
SUBMIT_DELAY_SECONDS_MAX = 3_155_760_000  # 100 years
RETRY_DELAY_SECONDS_MAX = 365 * 24 * 3600
LEASE_SECONDS_MAX = 365 * 24 * 3600  # what one heartbeat may ask for

Status = Literal["pending", "leased", "waiting", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("pending", "leased", "waiting", "succeeded", "failed", "cancelled")
# What happens to runs, as far as its rate is known.
RATES = ("submitted", "claimed", "succeeded", "failed", "retried", "cancelled", "expired")
ENDED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Run:
    """One row of ``workflow_run`` as it was when it was read; times are aware, in UTC.

    ``hidden`` names what this connection's role may not read of ``payload``, ``result`` and ``last_error``: these
    are None then.  What the run is about is in no ``repr``, so that logs do not hold it.
    """

    id: UUID
    type: str
    payload: Any = field(repr=False)
    status: Status
    priority: int
    run_at: datetime
    idempotency_key: str | None
    attempt: int
    max_attempts: int
    leased_by: str | None
    lease_until: datetime | None
    last_error: str | None
    result: Any = field(repr=False)
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    fencing_token: int
    parent_id: UUID | None
    finished_at: datetime | None
    hidden: frozenset[str] = frozenset()

    @property
    def has_ended(self) -> bool:
        """Whether the run succeeded, failed or was cancelled."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One row of ``workflow_event``: what happened to a run.  Within a run, ``id`` is the order."""

    id: int
    run_id: UUID
    event_type: str
    data: Mapping[str, Any] = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first, and the ``page`` to ask ``list`` for next (None: this was the last).

    A page that is not full although another follows is what was found among the ``looked_at`` runs that come first,
    back to those recorded at ``looked_back_to`` (None: to the very first, and a part of what came later).
    """

    runs: Sequence[Run]
    next_page: UUID | None
    looked_at: int = 0
    looked_back_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class PrunableCount:
    """How many runs ``prune`` would delete: so many, or, unless it ``is_exact``, so many at least."""

    runs: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """What the types that ``pattern`` covers keep, since when, and who set it so.

    Without ``keeps_events``, runs recorded since then leave none.  Without ``keeps_succeeded``, a run is deleted when
    it succeeds.  Of several that cover a type the most specific counts.
    """

    pattern: str
    keeps_events: bool
    keeps_succeeded: bool
    applies_from: datetime
    set_by: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A pattern that is not claimed: since when, who paused it, in whose name (of a key of the server), and why.

    ``paused_by`` is None where the registry was changed with the triggers switched off.
    """

    pattern: str
    reason: str | None
    paused_at: datetime
    paused_by: str | None
    paused_for: str | None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Half, 95 and 99 of a hundred took so many seconds or less, of ``count`` runs that were looked at."""

    p50: float
    p95: float
    p99: float
    count: int


@dataclass(frozen=True, slots=True)
class StatsPoint:
    """How many runs were submitted, claimed ... in the step that began at ``at``; the last step is not over yet."""

    at: datetime
    submitted: int
    claimed: int
    succeeded: int
    failed: int
    retried: int
    cancelled: int
    expired: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What there is, what is due, and what happened lately, of all types together, as it was ``at`` that time.

    ``runs`` has every status, hidden runs not counted: what ``select count(*)`` would say.  ``rates`` are those of
    ``RATES``, per second over the window; ``series`` the same as numbers of runs, in steps of ``step_seconds``.
    ``oldest_due_seconds`` is None when nothing due waits.  ``due`` is how many runs are due, None where that is not
    known without looking at many; ``due_is_exact`` tells the same.
    """

    at: datetime
    runs: Mapping[str, int]
    rates: Mapping[str, float]
    oldest_due_seconds: float | None
    due: int | None
    due_is_exact: bool
    step_seconds: int
    series: Sequence[StatsPoint]


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """What there is of one type, how it goes, and who handles it.

    ``runs`` has every status, ``rates`` are per second over the window.  ``handled_by`` is the type or prefix that a
    worker has registered for it, in ``runtime`` (None: no worker ever has); ``disabled_by`` the pattern that is paused.
    ``wait`` is from when a run was due to its claim, of those claimed once; ``run`` from the last claim to the end:
    both of 500 runs that ended in the window, of all types (None: none of this type is among them).
    """

    type: str
    runs: Mapping[str, int]
    rates: Mapping[str, float]
    oldest_due_seconds: float | None
    is_enabled: bool
    disabled_by: str | None
    handled_by: str | None
    runtime: str | None
    description: str | None
    wait: Percentiles | None
    run: Percentiles | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """One run to submit, with the arguments of ``Client.submit``.

    Without a payload it is an empty object.  ``delay``, seconds or a timedelta, counts from ``run_at``, or from
    now by the database's clock.  ``run_at`` must be aware.  ``priority``: lower runs first.  ``max_attempts``:
    1 to 1000.

    Raises:
        InvalidInput: a value is one that the table refuses; the message begins with its name.
    """

    type: str
    payload: Any = field(default=None, repr=False)
    idempotency_key: str | None = None
    priority: int = 100
    run_at: datetime | None = None
    delay: float | timedelta = 0.0
    max_attempts: int = 3

    def __post_init__(self) -> None:
        if self.payload is None:
            object.__setattr__(self, "payload", {})
        _check_type(self.type)
        check_integer("priority", self.priority, PRIORITY_MIN, PRIORITY_MAX)
        check_integer("max_attempts", self.max_attempts, 1, ATTEMPTS_MAX)
        if self.idempotency_key is not None:
            _check_key(self.idempotency_key)
        if self.run_at is not None:
            check_time("run_at", self.run_at)
        check_duration("delay", self.delay)

    @property
    def delay_seconds(self) -> float:
        """``delay`` in seconds."""
        return self.delay.total_seconds() if isinstance(self.delay, timedelta) else self.delay


_TYPE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_FIRST_TIME = datetime(1, 1, 2, tzinfo=UTC)
_LAST_TIME = datetime(9999, 12, 30, tzinfo=UTC)


def _check_type(value: object) -> None:
    if not isinstance(value, str) or len(value) > TYPE_CHARACTERS_MAX or not _is_type(value):
        raise InvalidInput(
            f"type: expected words of A-Z a-z 0-9 _ - joined by dots, at most {TYPE_CHARACTERS_MAX} characters, got "
            + shown(value)
        )


@lru_cache(maxsize=1000)
def _is_type(value: str) -> bool:
    return _TYPE.fullmatch(value) is not None


def check_integer(name: str, value: object, least: int, most: int) -> None:
    """Do nothing if ``value`` is an integer in these bounds.

    Raises:
        InvalidInput: it is not; the message begins with ``name``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(f"{name}: expected an integer from {least} to {most}, got {shown(value)}")


def _check_key(value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"idempotency_key: expected text, got {shown(value)}")
    if "\0" in value:
        raise InvalidInput("idempotency_key: expected text without NUL, which PostgreSQL cannot store")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput("idempotency_key: expected valid Unicode, got a lone surrogate") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise InvalidInput(f"idempotency_key: expected 1 to {KEY_BYTES_MAX} bytes, got {size}")


def check_duration(name: str, value: object) -> float:
    """Return a length of time, seconds or a timedelta, as seconds.

    Raises:
        InvalidInput: it is none, or negative, or longer than a hundred years; the message begins with ``name``.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not 0 <= seconds <= SUBMIT_DELAY_SECONDS_MAX
    ):
        raise InvalidInput(
            f"{name}: expected seconds from 0 to {SUBMIT_DELAY_SECONDS_MAX}, got {shown(seconds)}"
        )
    return float(seconds)


def check_time(name: str, value: object) -> None:
    """Do nothing if ``value`` is a time that the tables can hold.

    Raises:
        InvalidInput: it is naive, no datetime, or beyond the years 1 to 9999; the message begins with ``name``.
    """
    if not isinstance(value, datetime):
        raise InvalidInput(f"{name}: expected a datetime with a time zone, got {shown(value)}")
    if value.utcoffset() is None:
        raise InvalidInput(f"{name}: expected a datetime with a time zone, got the naive {value.isoformat()}")
    if not _FIRST_TIME <= value <= _LAST_TIME:
        raise InvalidInput(f"{name}: expected a time from 0001-01-02 to 9999-12-30, got {value.isoformat()}")


def utc_text(moment: datetime | None) -> str | None:
    """Return a time as the database takes it: of its own offsets PostgreSQL knows those below 16 hours only."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def shown(value: object) -> str:
    """Return a value for a message, short and on one line; of what may be large only the kind."""
    if isinstance(value, str):
        return ascii(value[:60])
    if isinstance(value, bool | float | None):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if math.log2(abs(value) + 1) < 128 else "a larger integer"
    return type(value).__name__[:60]


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a submission came to: the run's id, and False where its idempotency key existed already."""

    id: UUID
    created: bool


def matches(pattern: str, type_: str) -> bool:
    """Return whether ``pattern`` covers ``type_``: the same, or a prefix when it ends in ``%``."""
    return type_.startswith(pattern[:-1]) if pattern.endswith("%") else type_ == pattern


def narrow_patterns(handled: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Return the fewest patterns that cover what is both handled and wanted, sorted.

    ``billing.%`` narrowed by ``billing.invoice.v1`` is ``billing.invoice.v1``, and the other way round.
    """
    handled, wanted = set(handled), set(wanted)
    both = {one for one in handled for other in wanted if _covers(other, one)}
    both |= {other for other in wanted for one in handled if _covers(one, other)}
    return sorted(one for one in both if not any(_covers(other, one) for other in both - {one}))


def _covers(pattern: str, other: str) -> bool:
    """Return whether everything that ``other`` covers is covered by ``pattern``."""
    if not pattern.endswith("%"):
        return pattern == other
    return other.removesuffix("%").startswith(pattern[:-1])
