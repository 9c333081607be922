"""What workers do: the statements of the hot path, and those around it.

Runs are named by the text of their id here: a worker never computes with ids, and making UUID objects of
them would cost two microseconds each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from simpleworkflow.database import Rows, Statement
from simpleworkflow.statements.arrays import array_of, quoted


class Claimed(NamedTuple):
    """A run that this worker holds now.  ``payload`` and ``created_at`` are the texts that came.

    ``due_in_seconds`` is 0 or less: how long it had been due; None where that was not asked.
    ``traceparent``: the producer's span, where spans are asked for.
    """

    id: str
    type: str
    payload: str
    attempt: int
    max_attempts: int
    fencing_token: int
    created_at: str
    is_suspect: bool
    due_in_seconds: float | None = None
    traceparent: str | None = None

    def __repr__(self) -> str:
        return f"<Claimed {self.id} {self.type} attempt {self.attempt}>"


class Finished(NamedTuple):
    """The end of an attempt: ``pending`` means retry, after ``delay_seconds`` or by the default rule.

    ``type``, ``run_seconds`` (how long it took) and ``is_last`` (no attempt was left) are for who counts it.
    """

    id: str
    fencing_token: int
    status: str
    result: str | None = None
    error: str | None = None
    delay_seconds: float | None = None
    type: str = ""
    run_seconds: float = 0.0
    is_last: bool = False

    def __repr__(self) -> str:
        return f"<Finished {self.id} {self.status}>"


class Exchanged(NamedTuple):
    """What an exchange brought: claimed runs, else when the next is due; and what it refused to finish.

    ``is_suspect_waiting``: one is due that only a worker that holds nothing may claim.  ``lanes`` is where to claim
    next, ``look_seconds`` what it cost to look for them; both None where it was not asked.
    """

    claimed: list[Claimed]
    due_in_seconds: float | None
    refused: frozenset[str]
    is_suspect_waiting: bool = False
    lanes: str | None = None
    look_seconds: float | None = None


def exchange(
    worker: str,
    finished: Sequence[Finished],
    patterns: Sequence[str],
    *,
    limit: int,
    lease_seconds: float,
    held: int = 0,
    lanes: str | None = None,
    is_look: bool = True,
    tells_waits: bool = False,
) -> Statement[Exchanged]:
    """Finish one batch and claim the next, in one round trip and one commit.

    ``held`` is how many runs the worker holds beside those it finishes: with 0 it may be given a suspect.  ``lanes`` is
    what the last exchange told, at first ``{}``; None: remember none.  ``is_look``: look everywhere, not only there.
    ``tells_waits``: also how long each claimed run had been due, which costs a little for each.
    """
    due_at = "next_due_at" if tells_waits else "case when id is null then next_due_at end"
    return Statement(
        "select id::text, type, payload::text, attempt, max_attempts, fencing_token, created_at::text, is_suspect, "
        f"date_part('epoch', {due_at} - clock_timestamp()), refused::text[], lanes, look_seconds "
        "from {schema}.exchange(%s::text, %s::uuid[], %s::bigint[], %s::text[], %s::text[]::jsonb[], %s::text[], "
        "%s::double precision[], %s::text[], %s::int, %s::double precision, %s::int, %s::text, %s::boolean)",
        (worker, *_finish_arrays(finished), _texts(patterns), limit, lease_seconds, held, lanes, is_look),
        _read_exchanged,
    )


def finish_runs(worker: str, finished: Sequence[Finished]) -> Statement[set[str]]:
    """End attempts; return the ids of the runs that were still held."""
    return Statement(
        "select finish::text from {schema}.finish(%s::text, %s::uuid[], %s::bigint[], %s::text[], "
        "%s::text[]::jsonb[], %s::text[], %s::double precision[])",
        (worker, *_finish_arrays(finished)),
        _read_ids,
    )


def heartbeat_runs(
    worker: str, held: Sequence[tuple[str, int]], *, seconds: float, is_explicit: bool = False
) -> Statement[dict[str, str]]:
    """Extend leases; return for each run ``leased``, ``cancelled``, ``lost``, or ``locked``.

    ``locked``: somebody's transaction holds its row, so its lease was not extended; ask again.
    """
    return Statement(
        "select id::text, status from {schema}.heartbeat(%s::text, %s::uuid[], %s::bigint[], %s::double precision, "
        "%s::boolean)",
        (worker, *_held_arrays(held), seconds, is_explicit),
        dict,
        is_repeatable=True,
    )


def record_progress(worker: str, run_id: str, fencing_token: int, progress_json: str) -> Statement[bool]:
    """Leave a progress event; return False where the run is not held any more."""
    return Statement(
        "select {schema}.progress(%s::text, %s::text::uuid, %s::bigint, %s::text::jsonb)",
        (worker, run_id, fencing_token, progress_json),
        lambda rows: bool(rows[0][0]),
    )


def release_runs(worker: str, held: Sequence[tuple[str, int]]) -> Statement[set[str]]:
    """Give runs back untried; return the ids of those that were still held."""
    return Statement(
        "select release::text from {schema}.release(%s::text, %s::uuid[], %s::bigint[])",
        (worker, *_held_arrays(held)),
        _read_ids,
        is_repeatable=True,
    )


def expire_runs(dead_workers: Sequence[str] = (), taken: Sequence[str] = ()) -> Statement[dict[str, str]]:
    """Take the runs of lapsed leases and of workers known dead; return what each became.

    ``taken``: ids of what was taken of the dead before; what a session of theirs has claimed again is given back.
    """
    return Statement(
        "select id::text, status from {schema}.expire(%s::text[], p_taken => %s::uuid[])",
        (_texts(dead_workers), array_of(taken)),
        dict,
        is_repeatable=True,
    )


def next_lease_until() -> Statement[float | None]:
    """Return the seconds until the next lease lapses unless it is extended; None: nothing is leased."""
    return Statement(
        "select extract(epoch from {schema}.next_lease_until() - clock_timestamp())::double precision",
        (),
        lambda rows: rows[0][0],
        is_repeatable=True,
    )


def next_upkeep() -> Statement[tuple[float | None, bool]]:
    """Return what ``next_lease_until`` does, and whether there is an operation to carry out: one look for both."""
    return Statement(
        "select extract(epoch from lease_until - clock_timestamp())::double precision, has_operations "
        "from {schema}.next_upkeep()",
        (),
        lambda rows: (rows[0][0], bool(rows[0][1])),
        is_repeatable=True,
    )


def register_types(names: Sequence[str]) -> Statement[None]:
    """Enter the types and patterns that a worker handles into the registry."""
    return Statement(
        "select {schema}.register_types(%s::text[], 'python')",
        (_texts(names),),
        lambda _: None,
        is_repeatable=True,
    )


def get_traceparents(worker: str, run_ids: Sequence[str]) -> Statement[dict[str, str]]:
    """Return the producer's span of each run that the worker holds and that was submitted in one."""
    return Statement(
        "select id::text, traceparent from {schema}.traceparents(%s::text, %s::uuid[])",
        (worker, array_of(run_ids)),
        dict,
        is_repeatable=True,
    )


def parse_time(text: str) -> datetime:
    """Return the time that a timestamptz cast to text says, when it is needed at all."""
    return datetime.fromisoformat(text)


def _texts(items: Iterable[str]) -> str:
    return array_of(map(quoted, items))


def _finish_arrays(finished: Sequence[Finished]) -> tuple[object, ...]:
    if not finished:
        return "{}", "{}", "{}", None, None, None
    return (
        array_of([one.id for one in finished]),
        array_of([str(one.fencing_token) for one in finished]),
        array_of([one.status for one in finished]),
        _unless_all_none([one.result for one in finished]),
        _unless_all_none([one.error for one in finished]),
        _unless_all_none([one.delay_seconds for one in finished]),
    )


def _held_arrays(held: Sequence[tuple[str, int]]) -> tuple[str, str]:
    return (
        array_of([run_id for run_id, _ in held]),
        array_of([str(token) for _, token in held]),
    )


def _unless_all_none(values: list[object]) -> list[object] | None:
    return values if any(value is not None for value in values) else None


def _read_ids(rows: Rows) -> set[str]:
    return {row[0] for row in rows}


def _read_exchanged(rows: Rows) -> Exchanged:
    # Notes, which have no id, come first.
    first = next((index for index, row in enumerate(rows) if row[0] is not None), len(rows))
    notes, claimed = rows[:first], [Claimed(*row[:9]) for row in rows[first:]]
    return Exchanged(
        claimed,
        min((row[8] for row in notes if row[8] is not None), default=None),
        frozenset(run_id for row in notes for run_id in row[9] or ()),
        any(row[7] for row in notes),
        next((row[10] for row in notes if row[10] is not None), None),
        next((row[11] for row in notes if row[11] is not None), None),
    )
