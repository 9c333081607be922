"""Who the workers are, what they say of themselves, and why a run does not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from simpleworkflow.codec import decode
from simpleworkflow.database import Rows, Statement
from simpleworkflow.summaries import HeldRun, Why, WorkerState, WorkerSummary

_COLUMNS = (
    "id, host, pid, runtime, version, patterns, concurrency, beat_seconds, started_at, seen_at, stopping_at, "
    "stopped_at, state, held, holds::text"
)


class Introduction(NamedTuple):
    """What a worker says of itself when it starts."""

    worker: str
    patterns: Sequence[str]
    concurrency: int
    host: str
    pid: int
    version: str


def register_worker(introduction: Introduction, *, beat_seconds: float) -> Statement[None]:
    """Enter a worker, which will be seen every so many seconds."""
    return Statement(
        "select {schema}.register_worker(%s::text, %s::text[], %s::int, %s::text, %s::int, 'python', %s::text, "
        "%s::double precision)",
        (
            introduction.worker,
            list(introduction.patterns),
            introduction.concurrency,
            introduction.host,
            introduction.pid,
            introduction.version,
            beat_seconds,
        ),
        lambda _: None,
        is_repeatable=True,
    )


def beat_workers(held: Mapping[str, int]) -> Statement[set[str]]:
    """Say of workers that they are alive, and how many runs each holds; return those that are known."""
    return Statement(
        "select beat_workers from {schema}.beat_workers(%s::text[], %s::int[])",
        (list(held), list(held.values())),
        lambda rows: {row[0] for row in rows},
        is_repeatable=True,
    )


def end_workers(workers: Sequence[str], state: WorkerState) -> Statement[set[str]]:
    """Say that workers are ``stopping``, have ``stopped`` or are ``lost``; return those that this changed."""
    return Statement(
        "select end_workers from {schema}.end_workers(%s::text[], %s::text)",
        (list(workers), state),
        lambda rows: {row[0] for row in rows},
        is_repeatable=True,
    )


def list_workers(*, limit: int, holds: int) -> Statement[list[WorkerSummary]]:
    """Return up to ``limit`` workers, those that run first, each with up to ``holds`` of the runs it holds."""
    return Statement(
        f"select {_COLUMNS} from {{schema}}.list_workers(%s::int, %s::int)",
        (limit, holds),
        lambda rows: [_read_worker(*row) for row in rows],
        is_repeatable=True,
    )


def why(run_id: UUID, *, shows_contents: bool = True) -> Statement[Why | None]:
    """Return why a run is not running; None: there is no such run.  ``shows_contents``: with errors and reasons."""
    return Statement(
        "select reason, says, remedy, facts::text from {schema}.why(%s::text::uuid, %s::boolean)",
        (str(run_id), shows_contents),
        _read_why,
        is_repeatable=True,
    )


def _read_worker(id_: str, *rest: Any) -> WorkerSummary:
    host, pid, runtime, version, patterns, concurrency, beat_seconds, *others = rest
    started_at, seen_at, stopping_at, stopped_at, state, held, holds = others
    return WorkerSummary(
        id=id_,
        host=host,
        pid=pid,
        runtime=runtime,
        version=version,
        patterns=tuple(patterns),
        concurrency=concurrency,
        beat_seconds=beat_seconds,
        started_at=started_at.astimezone(UTC),
        seen_at=seen_at.astimezone(UTC),
        stopping_at=stopping_at and stopping_at.astimezone(UTC),
        stopped_at=stopped_at and stopped_at.astimezone(UTC),
        state=state,
        held=held,
        holds=tuple(_read_held(one) for one in decode(holds)),
    )


def _read_held(held: Mapping[str, Any]) -> HeldRun:
    return HeldRun(
        id=UUID(held["id"]),
        type=held["type"],
        attempt=held["attempt"],
        leased_at=datetime.fromisoformat(held["leased_at"]).astimezone(UTC),
        lease_until=datetime.fromisoformat(held["lease_until"]).astimezone(UTC),
    )


def _read_why(rows: Rows) -> Why | None:
    if not rows:
        return None
    reason, says, remedy, facts = rows[0]
    return Why(reason, says, remedy, decode(facts))
