"""Loads: which runs are submitted, in bulk, and when all of them have ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from simpleworkflow.database import run
from simpleworkflow.statements import Finished, exchange
from stage import SCHEMA, TYPE

CHUNK_RUNS_MAX = 100_000
DRAIN_SECONDS_MAX = 600.0
FLOOR_BATCH = 250  # what one exchanger of a worker with the default concurrency claims at once

_SUBMIT = f"""
select count(*) from {SCHEMA}.submit_many(
  array(select replace(%(type)s, '#', (n %% %(types)s)::text) from generate_series(1, %(runs)s) as n),
  array(select '{{}}'::jsonb from generate_series(1, %(runs)s)),
  null,
  array(select %(priority)s + n %% %(priorities)s from generate_series(1, %(runs)s) as n),
  null,
  array(select %(delay_seconds)s::double precision from generate_series(1, %(runs)s)),
  null)""".encode()
# What the partial index of the lanes says, word for word: without `not is_suspect` it cannot be used.
_CLAIMABLE = (
    f"select from {SCHEMA}.workflow_run where status = 'pending' and deleted_at is null and not is_suspect"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Runs of one type, or of ``types`` types whose numbers stand for the ``#``, in ``priorities`` priorities."""

    type: str = TYPE
    types: int = 1
    priority: int = 100
    priorities: int = 1
    delay_seconds: float = 0.0

    def submit(self, conn: psycopg.Connection, runs: int, *, chunk: int = CHUNK_RUNS_MAX) -> None:
        """Record so many runs, at most ``chunk`` in a statement."""
        for start in range(0, runs, chunk):
            values = {name: getattr(self, name) for name in self.__slots__}
            conn.execute(_SUBMIT, values | {"runs": min(chunk, runs - start)})

    def is_left(self, conn: psycopg.Connection) -> bool:
        """Return whether any of them is pending, or any run at all leased.

        Looked for from the end of the index: at its beginning stand the dead entries of what was claimed.
        """
        if "#" in self.type:
            prefix = self.type.partition("#")[0]
            which, values = "type >= %s and type < %s", [prefix, f"{prefix}~"]
        else:
            which, values = "type = %s and priority >= %s::int", [self.type, str(self.priority)]
        found = conn.execute(
            f"select exists ({_CLAIMABLE} and {which} order by type desc, priority desc, run_at desc limit 1)"
            f" or exists (select from {SCHEMA}.workflow_run where status = 'leased')".encode(),
            values,
        )
        return found.fetchone() == (True,)


NOOP = Load()


def drain(conn: psycopg.Connection, load: Load, runs: int) -> float:
    """Submit runs; return how many a second were finished, from their commit to the last finish."""
    load.submit(conn, runs)
    committed_at = now(conn)
    wait_until_ended(conn, load)
    return runs / (last_finish(conn) - committed_at).total_seconds()


def wait_until_ended(conn: psycopg.Connection, load: Load, *, look_seconds: float = 0.05) -> None:
    """Return when none of the load is left."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while load.is_left(conn):
        if time.monotonic() > deadline:
            raise SystemExit(f"not drained within {DRAIN_SECONDS_MAX:g} s")
        time.sleep(look_seconds)


def drain_bare(conn: psycopg.Connection, type_: str = TYPE) -> None:
    """Drain with the SQL functions alone, over one connection, without handlers."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    finished: list[Finished] = []
    while time.monotonic() < deadline:
        statement = exchange("bare", finished, [type_], limit=FLOOR_BATCH, lease_seconds=30)
        claimed = run(conn, statement, SCHEMA).claimed
        finished = sorted(Finished(one.id, one.fencing_token, "succeeded") for one in claimed)
        if not finished:
            return
    raise SystemExit(f"not drained within {DRAIN_SECONDS_MAX:g} s")


def now(conn: psycopg.Connection) -> datetime:
    """Return the database's time."""
    found: datetime = value(conn, "select clock_timestamp()")
    return found


def last_finish(conn: psycopg.Connection) -> datetime:
    """Return when the last run ended."""
    found: datetime = value(conn, f"select max(finished_at) from {SCHEMA}.workflow_run")
    return found


def value(conn: psycopg.Connection, query: str, *parameters: object) -> Any:
    """Return the one value of a query."""
    row = conn.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]
