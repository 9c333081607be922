"""Rows and operations that tests are written in: ``a_run(db, status="leased")``, ``claim``, ``age``.

Everything goes through the package's own statements; only ``age`` and a waiting run write the table, in
the owner's name, because time cannot be waited for.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from simpleworkflow import statements
from simpleworkflow.database import Statement, run
from simpleworkflow.dburl import parse
from simpleworkflow.model import NewRun, Submitted

LEASE_SECONDS = 30


class Database(psycopg.Connection[Any]):
    """An autocommit connection whose search_path is the schema of the test."""

    schema: str


@dataclass(frozen=True)
class Held:
    """A claim: the run, the token it was claimed with, and by whom."""

    id: str
    type: str
    attempt: int
    fencing_token: int
    worker: str


def connect(url: str, **parameters: Any) -> Database:
    """Connect to ``url``, which may name a schema with ``?schema=``."""
    place = parse(url)
    conn = Database.connect(parse(direct(url)).portable, autocommit=True, **parameters)
    assert isinstance(conn, Database)
    conn.schema = place.schema
    return conn


def direct(url: str) -> str:
    """Return ``url`` itself, or, where ``DATABASE_URL`` leads through a pooler, the one past it.

    What a test observes and what it plants needs a session of its own; the package under test goes through the pooler.
    """
    past = os.environ.get("DATABASE_DIRECT_URL")
    if not past or not url.startswith(os.environ["DATABASE_URL"]):
        return url
    return past + url.removeprefix(os.environ["DATABASE_URL"])


def ask(db: Database, statement: Statement[Any]) -> Any:
    """Run one of the package's statements in the schema of the test."""
    return run(db, statement, db.schema)


def a_type(prefix: str = "test") -> str:
    """Return a type that no other test uses."""
    return f"{prefix}.{uuid.uuid4().hex[:12]}.v1"


# ── runs ───────────────────────────────────────────────────────────────────────────────────────────


def submit(db: Database, type_: str | None = None, payload: Any = None, **options: Any) -> str:
    """Record a run; return its id."""
    new = NewRun(type=type_ or a_type(), payload=payload, **options)
    return str(ask(db, statements.submit_run(new)).id)


def submit_many(db: Database, news: Sequence[NewRun]) -> list[Submitted]:
    """Record many runs in one go; return one answer for each."""
    return [answer for statement in statements.submit_runs(news) for answer in ask(db, statement)]


def a_run(db: Database, *, status: str = "pending", worker: str = "worker", **options: Any) -> str:
    """Return the id of a new run that is in ``status``, come to it as the design allows.

    ``waiting``, to which no function leads yet, is written by the owner without an event.
    """
    type_ = options.pop("type", None) or a_type()
    run_id = submit(db, type_, **options)
    if status == "cancelled":
        cancel(db, run_id)
    elif status == "waiting":
        rewrite(db, run_id, "status = 'waiting'")
    elif status != "pending":
        held = claim(db, worker=worker, pattern=type_)
        assert held is not None
        if status != "leased":
            assert finish(db, held, status=status)
    assert status_of(db, run_id) == status
    return run_id


def a_held_run(
    db: Database, *, worker: str = "worker", seconds: float = LEASE_SECONDS, **options: Any
) -> Held:
    """Return the claim of a new run that ``worker`` holds."""
    type_ = options.pop("type", None) or a_type()
    submit(db, type_, **options)
    held = claim(db, worker=worker, pattern=type_, seconds=seconds)
    assert held is not None
    return held


def held_by(db: Database, run_id: str) -> Held:
    """Return the present claim of a leased run."""
    row = db.execute(
        "select id::text, type, attempt, fencing_token, leased_by from workflow_run where id = %s", [run_id]
    ).fetchone()
    assert row is not None
    return Held(*row)


# ── operations ─────────────────────────────────────────────────────────────────────────────────────


def claim_many(
    db: Database,
    *,
    worker: str = "worker",
    patterns: Sequence[str] = ("%",),
    limit: int = 100,
    seconds: float = LEASE_SECONDS,
) -> list[Held]:
    """Claim up to ``limit`` runs, best first."""
    got = ask(db, statements.exchange(worker, [], patterns, limit=limit, lease_seconds=seconds))
    return [Held(one.id, one.type, one.attempt, one.fencing_token, worker) for one in got.claimed]


def claim(
    db: Database, *, worker: str = "worker", pattern: str = "%", seconds: float = LEASE_SECONDS
) -> Held | None:
    """Claim one run, or none."""
    return next(iter(claim_many(db, worker=worker, patterns=[pattern], limit=1, seconds=seconds)), None)


def finish(
    db: Database,
    held: Held,
    *,
    status: str = "succeeded",
    result: Any = None,
    error: str | None = None,
    delay_seconds: float | None = None,
    worker: str | None = None,
) -> bool:
    """End an attempt; return whether that was accepted."""
    done = statements.Finished(
        held.id,
        held.fencing_token,
        status,
        None if result is None else json.dumps(result),
        error,
        delay_seconds,
    )
    return held.id in ask(db, statements.finish_runs(worker or held.worker, [done]))


def retry(db: Database, held: Held, *, delay_seconds: float | None = 0, error: str = "no luck") -> bool:
    """End an attempt so that the run is tried again."""
    return finish(db, held, status="pending", error=error, delay_seconds=delay_seconds)


def heartbeat(
    db: Database,
    held: Held,
    *,
    seconds: float = LEASE_SECONDS,
    worker: str | None = None,
    is_explicit: bool = False,
) -> str:
    """Extend a lease; return ``leased``, ``cancelled`` or ``lost``."""
    said = ask(
        db,
        statements.heartbeat_runs(
            worker or held.worker, [(held.id, held.fencing_token)], seconds=seconds, is_explicit=is_explicit
        ),
    )
    return str(said[held.id])


def release(db: Database, held: Held, *, worker: str | None = None) -> bool:
    """Give a run back untried; return whether that was accepted."""
    return held.id in ask(db, statements.release_runs(worker or held.worker, [(held.id, held.fencing_token)]))


def progress(db: Database, held: Held, note: Any = 1) -> bool:
    """Leave a progress event; return whether that was accepted."""
    return bool(
        ask(db, statements.record_progress(held.worker, held.id, held.fencing_token, json.dumps(note)))
    )


def expire(db: Database, *dead: str, taken: Sequence[str] = ()) -> dict[str, str]:
    """Expire lapsed leases and those of dead workers, ``taken`` of them before; return what each run became."""
    return dict(ask(db, statements.expire_runs(dead, taken)))


def cancel(db: Database, run_id: str, *, reason: str | None = None) -> bool:
    """Cancel a run; return whether that changed it."""
    return bool(ask(db, statements.cancel_runs([uuid.UUID(run_id)], reason))[uuid.UUID(run_id)])


def reopen(db: Database, run_id: str, *, attempts: int = 3, reason: str | None = None) -> bool:
    """Give a run a new budget; return whether that changed it."""
    return bool(ask(db, statements.reopen_runs([uuid.UUID(run_id)], attempts, reason))[uuid.UUID(run_id)])


def set_policy(db: Database, pattern: str, *, events: bool = True, succeeded: bool = True) -> bool:
    """Say what a pattern keeps; return whether that changed anything."""
    return bool(ask(db, statements.set_policy(pattern, keeps_events=events, keeps_succeeded=succeeded)))


def drop_policy(db: Database, pattern: str) -> bool:
    """End the policy of a pattern; return whether there was one."""
    return bool(ask(db, statements.drop_policy(pattern)))


# ── time ───────────────────────────────────────────────────────────────────────────────────────────


def age(db: Database, run_id: str | Held, seconds: float) -> None:
    """Move all times of the run and of its events into the past."""
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    rewrite(
        db,
        run_id,
        ", ".join(
            f"{column} = {column} - make_interval(secs => {seconds:f})"
            for column in ("run_at", "created_at", "updated_at", "lease_until", "finished_at")
        ),
    )


def lapse(db: Database, run_id: str | Held) -> None:
    """Let a lease lapse: nobody has expired it yet."""
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    rewrite(db, run_id, "lease_until = clock_timestamp() - interval '1 second'")


def lose(db: Database, run_id: str | Held) -> dict[str, str]:
    """Let a lease lapse and be expired, no heartbeat between; return what each run became."""
    with db.transaction():
        lapse(db, run_id)
        return expire(db)


def rewrite(db: Database, run_id: str, assignments: str) -> None:
    """Change a run's columns as no program may: as the owner, past guard and audit."""
    with db.transaction():
        # A transition that leaves no event, as heartbeats that extend a lease do.
        db.execute("select set_config('workflow.transition', 'extend', true)")
        db.execute(f"update workflow_run set {assignments} where id = %s".encode(), [run_id])
        db.execute("select set_config('workflow.transition', '', true)")


# ── reading ────────────────────────────────────────────────────────────────────────────────────────


def status_of(db: Database, run_id: str) -> str:
    """Return the status of a run."""
    return str(column_of(db, run_id, "status"))


def column_of(db: Database, run_id: str | Held, column: str) -> Any:
    """Return one column of a run."""
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    row = db.execute(f"select {column} from workflow_run where id = %s".encode(), [run_id]).fetchone()
    assert row is not None
    return row[0]


def row_of(db: Database, run_id: str) -> str:
    """Return the whole row as text, to compare."""
    row = db.execute("select run::text from workflow_run as run where id = %s", [run_id]).fetchone()
    assert row is not None
    return str(row[0])


def events_of(db: Database, run_id: str | Held) -> list[str]:
    """Return the kinds of a run's events in their order."""
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    rows = db.execute("select event_type from workflow_event where workflow_id = %s order by id", [run_id])
    return [row[0] for row in rows]


def last_event(db: Database, run_id: str | Held) -> tuple[str, dict[str, Any]]:
    """Return the kind and the data of a run's last event."""
    run_id = run_id.id if isinstance(run_id, Held) else run_id
    row = db.execute(
        "select event_type, data from workflow_event where workflow_id = %s order by id desc limit 1",
        [run_id],
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def attempt(db: Database, statement: str, *values: Any) -> str | None:
    """Execute a statement; return the SQLSTATE it was refused with, or None."""
    try:
        with db.transaction():
            db.execute(statement.encode(), values or None)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def count(db: Database, table: str, condition: str = "true", *values: Any) -> int:
    """Return the number of rows."""
    row = db.execute(f"select count(*) from {table} where {condition}".encode(), values or None).fetchone()
    assert row is not None
    return int(row[0])


def blocks_touched(db: Database, statement: str, *values: Any) -> int:
    """Return how many blocks a statement has touched, in shared memory or on disk."""
    plan = db.execute(
        f"explain (analyze, buffers, format json) {statement}".encode(), values or None
    ).fetchone()[0]
    node = plan[0]["Plan"]
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])
