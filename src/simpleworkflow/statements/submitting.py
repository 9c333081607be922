"""What producers and operators change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from simpleworkflow.codec import encode_payload
from simpleworkflow.database import Rows, Statement
from simpleworkflow.errors import InvalidInput
from simpleworkflow.model import NewRun, Submitted, utc_text
from simpleworkflow.statements.arrays import array_of, quoted

T = TypeVar("T")

# The table's own defaults.
PRIORITY, ATTEMPTS = 100, 3
# What one statement holds at most: more rows gain nothing (measured 1,000 to 50,000), more bytes cost memory.
CHUNK_ROWS_MAX = 5_000
CHUNK_BYTES_MAX = 4_000_000


def submit_run(new: NewRun, *, traceparent: str | None = None) -> Statement[Submitted]:
    """Record one run, in that span; only with an idempotency key may it be sent twice.

    Without one it is the plain INSERT that any producer may write: to call ``submit`` around it would cost the server a
    third more (414 instead of 298 microseconds).  Its names are qualified: it has the search_path of whoever asks.
    """
    payload, run_at, delay = encode_payload(new.payload), utc_text(new.run_at), float(new.delay_seconds)
    if new.idempotency_key is None:
        return Statement(
            "insert into {schema}.workflow_run (type, payload, priority, run_at, max_attempts, traceparent) values "
            "(%s::text, %s::text::jsonb, %s::int, coalesce(%s::text::timestamptz, current_timestamp) "
            "operator(pg_catalog.+) pg_catalog.make_interval(secs => %s::double precision), %s::int, %s::text) "
            "returning id::text, true",
            (new.type, payload, new.priority, run_at, delay, new.max_attempts, traceparent),
            lambda rows: _read_submitted(rows)[0],
            is_change=True,
        )
    return Statement(
        "select id::text, created from {schema}.submit(%s::text, %s::text::jsonb, %s::text, %s::int, "
        "%s::text::timestamptz, %s::double precision, %s::int, %s::text)",
        (
            new.type,
            payload,
            new.idempotency_key,
            new.priority,
            run_at,
            delay,
            new.max_attempts,
            traceparent,
        ),
        lambda rows: _read_submitted(rows)[0],
        is_repeatable=True,
        is_change=True,
    )


def submit_runs(
    news: Iterable[NewRun], *, traceparent: str | None = None
) -> Iterator[Statement[list[Submitted]]]:
    """Record many runs, in as few statements as is good; one answer for each run, in the order given.

    A statement is made when it is asked for, so that memory holds one of them, not all the runs.

    Raises:
        InvalidInput: a payload cannot be stored; the message names the position of its run.
    """
    chunk: list[NewRun] = []
    payloads: list[str] = []
    size = 0
    for position, new in enumerate(news):
        try:
            payload = encode_payload(new.payload)
        except InvalidInput as error:
            raise InvalidInput(f"runs[{position}]: {error}") from error
        if chunk and (len(chunk) == CHUNK_ROWS_MAX or size + len(payload) > CHUNK_BYTES_MAX):
            yield _submit_chunk(chunk, payloads, traceparent)
            chunk, payloads, size = [], [], 0
        chunk.append(new)
        payloads.append(payload)
        size += len(payload)
    if chunk:
        yield _submit_chunk(chunk, payloads, traceparent)


def _submit_chunk(
    news: Sequence[NewRun], payloads: Sequence[str], traceparent: str | None
) -> Statement[list[Submitted]]:
    return Statement(
        "select id::text, created from {schema}.submit_many(%s::text::text[], %s::text::jsonb[], %s::text::text[], "
        "%s::text::int[], %s::text::timestamptz[], %s::text::double precision[], %s::text::int[], %s::text)",
        (
            array_of([quoted(new.type) for new in news]),
            array_of([quoted(payload) for payload in payloads]),
            _column([new.idempotency_key for new in news], None, quoted),
            _column([new.priority for new in news], PRIORITY, str),
            _column([new.run_at for new in news], None, _time),
            _column([new.delay_seconds for new in news], 0.0, str),
            _column([new.max_attempts for new in news], ATTEMPTS, str),
            traceparent,
        ),
        _read_submitted,
        is_repeatable=all(new.idempotency_key is not None for new in news),
        is_change=True,
    )


def cancel_runs(run_ids: Sequence[UUID], reason: str | None) -> Statement[dict[UUID, bool]]:
    """Cancel runs; return for each that exists whether this changed it."""
    return Statement(
        "select id::text, changed from {schema}.cancel(%s::text[]::uuid[], %s::text)",
        ([str(run_id) for run_id in run_ids], reason),
        _read_changed,
        is_repeatable=True,
        is_change=True,
    )


def reopen_runs(run_ids: Sequence[UUID], attempts: int, reason: str | None) -> Statement[dict[UUID, bool]]:
    """Give failed or cancelled runs a new budget; return for each that exists whether this changed it."""
    return Statement(
        "select id::text, changed from {schema}.reopen(%s::text[]::uuid[], %s::int, %s::text)",
        ([str(run_id) for run_id in run_ids], attempts, reason),
        _read_changed,
        is_change=True,
    )


def _column(values: list[T], default: T, write: Callable[[T], str]) -> str | None:
    """Return the values as an array; None where all are what the database takes for a value that is missing."""
    return None if values.count(default) == len(values) else array_of(map(write, values))


def _time(moment: datetime | None) -> str:
    return quoted(utc_text(moment))


def _read_submitted(rows: Rows) -> list[Submitted]:
    return [Submitted(UUID(id_), created) for id_, created in rows]


def _read_changed(rows: Rows) -> dict[UUID, bool]:
    return {UUID(id_): changed for id_, changed in rows}
