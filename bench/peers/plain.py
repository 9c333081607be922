"""A plain table of jobs, as many write it themselves: no audit, no lease, no fence; SKIP LOCKED in batches."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from protocol import in_threads, main, started

BATCH = 500
TABLE = """
create table job (
  id bigint generated always as identity primary key, payload jsonb not null,
  status text not null default 'pending', created_at timestamptz not null default now());
create index on job (id) where status = 'pending';
create index on job (id) where status = 'running';
"""
EXCHANGE = """
with finished as (update job set status = 'done' where id = any (%s)),
claimed as (select id from job where status = 'pending' order by id limit %s for update skip locked)
update job set status = 'running' from claimed where job.id = claimed.id returning job.id, job.payload::text
"""


def setup(url: str) -> None:
    """Make the table."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(TABLE)


class Producer:
    """One INSERT and one NOTIFY in a transaction."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)

    def submit(self, payload: dict[str, int]) -> None:
        """Record one job."""
        self._conn.execute(
            "with job as (insert into job (payload) values (%s)) select pg_notify('job', '')",
            [Jsonb(payload)],
        )

    def bulk(self, payloads: list[dict[str, int]]) -> None:
        """Record many jobs."""
        rows = [json.dumps(one) for one in payloads]
        self._conn.execute(
            "with job as (insert into job (payload) select unnest(%s::text[])::jsonb) select pg_notify('job', '')",
            [rows],
        )


def work(url: str) -> None:
    """Drain over two connections until the program is ended."""
    in_threads(2, _drain, url)


def _drain(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("listen job")
        finished: list[Any] = []
        while True:
            try:
                claimed = conn.execute(EXCHANGE, [finished, BATCH]).fetchall()
            except psycopg.errors.DeadlockDetected:
                continue  # following what the other has just changed, SKIP LOCKED may wait after all
            for _, payload in claimed:
                started(json.loads(payload))
            if not claimed and not finished:
                list(conn.notifies(timeout=2, stop_after=1))
            finished = [id_ for id_, _ in claimed]


if __name__ == "__main__":
    main(setup, Producer, work)
