"""As fast while somebody holds a snapshot: no version that dies meanwhile can be removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import psycopg

from scenarios.figures import Figure, Target, in_turns
from scenarios.ground import Ground, Place, steady
from scenarios.loads import NOOP, drain_bare, value, wait_until_ended
from stage import SCHEMA, TYPE, fresh_schema

LEAST = Target(least=0.9)
CHUNK_RUNS = 5_000  # what one statement of Client.submit_many records; each has a run_at of its own

# The end of the first tenth is counted from the first finish, so that how soon the worker noticed does not matter.
_TENTHS = f"""
with ended as (
  select finished_at, ntile(10) over (order by finished_at) as tenth
    from {SCHEMA}.workflow_run where type = %s and created_at > %s and finished_at is not null),
tenths as (
  select tenth, count(*) as runs, max(finished_at) as until,
         coalesce(lag(max(finished_at)) over (order by tenth), min(finished_at)) as since
    from ended group by tenth)
select max(runs / greatest(extract(epoch from until - since), 0.000001)) filter (where tenth = 10)
     / max(runs / greatest(extract(epoch from until - since), 0.000001)) filter (where tenth = 1)
  from tenths"""


def snapshot(ground: Ground) -> Iterator[Figure]:
    """Rate of the last tenth ÷ the first, with a snapshot held: a worker, and the SQL functions bare."""
    values = in_turns(
        ground.sizes.rounds,
        {
            "worker": lambda: _by_worker(ground, is_held=True),
            "bare": lambda: _bare(ground, is_held=True),
            "free": lambda: _by_worker(ground, is_held=False),
        },
    )
    flow = f"{ground.sizes.flow:,} runs, last tenth ÷ first"
    yield Figure(f"snapshot held, worker, {flow}", "ratio", values["worker"], LEAST)
    yield Figure(f"snapshot held, bare functions, {flow}", "ratio", values["bare"])
    yield Figure(f"no snapshot held, worker, {flow}", "ratio", values["free"])


def _by_worker(ground: Ground, *, is_held: bool) -> float:
    with ground.place() as place, _held(place.url) if is_held else nullcontext():
        return _flow(ground, place.conn, lambda: _let_worker_drain(place))


def _bare(ground: Ground, *, is_held: bool) -> float:
    with ground.database() as url, fresh_schema(url) as conn, _held(url) if is_held else nullcontext():
        steady(conn)
        conn.execute(
            f"insert into {SCHEMA}.workflow_registry (workflow_name, runtime) values (%s, 'bench')".encode(),
            [TYPE],
        )

        def drain_all() -> None:
            _enable(conn, True)
            drain_bare(conn)

        return _flow(ground, conn, drain_all)


def _flow(ground: Ground, conn: psycopg.Connection, drain: Callable[[], None]) -> float:
    """Record all runs while none is claimed, so that no producer disturbs the first tenth; then drain them."""
    _enable(conn, False)
    began_at = value(conn, "select clock_timestamp()")
    NOOP.submit(conn, ground.sizes.flow, chunk=CHUNK_RUNS)
    ground.checkpoint()
    drain()
    return float(value(conn, _TENTHS, TYPE, began_at))


def _let_worker_drain(place: Place) -> None:
    _enable(place.conn, True)
    place.conn.execute(f"select {SCHEMA}.wake(array[%s])".encode(), [TYPE])
    # Seldom: with a snapshot held even this question walks over dead entries.
    wait_until_ended(place.conn, NOOP, look_seconds=0.5)


def _enable(conn: psycopg.Connection, is_enabled: bool) -> None:
    conn.execute(
        f"update {SCHEMA}.workflow_registry set is_enabled = %s where workflow_name = %s".encode(),
        [is_enabled, TYPE],
    )


@contextmanager
def _held(url: str) -> Iterator[None]:
    """Hold a snapshot: a session that has read something, and is idle in its transaction."""
    with psycopg.connect(url) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute(f"select count(*) from {SCHEMA}.workflow_run".encode())
        yield
        conn.rollback()
