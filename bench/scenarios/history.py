"""As fast, and as soon answered, with millions of finished runs in the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict

from scenarios.figures import Figure, Target, in_turns, rates, ratio
from scenarios.ground import Ground, in_database
from scenarios.loads import NOOP, value
from simpleworkflow.client.verbs import COUNTED_AT_ONCE, LISTED_AT_ONCE
from simpleworkflow.database import Statement, run
from simpleworkflow.statements import count_prunable_runs, get_runs, list_events, list_page
from stage import SCHEMA

LEAST = Target(least=0.9)
MOST_MS = Target(most=50)
CHUNK_RUNS = 100_000
READ_SECONDS_MAX = 60

# As a month of work would have left them, oldest first: ten types, one run in fifty failed at its last attempt.
# The ids are in the order of time, as everywhere.
_LOAD = f"""
with runs as (
  insert into {SCHEMA}.workflow_run
         (id, type, payload, status, run_at, attempt, fencing_token, last_error, result,
          created_at, updated_at, finished_at)
  select {SCHEMA}.uuid7(),
         case n %% 10 when 0 then 'bench.noop.v1' else format('past.kind%%s.v1', n %% 10) end,
         jsonb_build_object('order', n, 'customer', n %% 1000),
         case when n %% 50 = 7 then 'failed' else 'succeeded' end, at, 1, 1,
         case when n %% 50 = 7 then 'ValueError: no such customer' end,
         case when n %% 50 <> 7 then '{{"ok": true}}'::jsonb end,
         at, at + interval '0.2 seconds', at + interval '0.2 seconds'
    from (select n, now() - interval '1 hour' - interval '30 days' * (1 - n / %(all)s::double precision) as at
            from generate_series(%(first)s::bigint, %(last)s::bigint) as n) as numbered
  returning id, status, created_at)
insert into {SCHEMA}.workflow_event (workflow_id, event_type, data, created_at)
select runs.id, coalesce(event.type, runs.status), event.data, runs.created_at + event.after
  from runs
 cross join (values
   ('created', '{{"by": "workflow"}}'::jsonb, interval '0'),
   ('leased', '{{"worker": "host:4711:0a1b2c3d", "attempt": 1, "token": 1}}', interval '0.1 seconds'),
   (null, '{{"worker": "host:4711:0a1b2c3d", "attempt": 1, "token": 1}}', interval '0.2 seconds'))
   as event (type, data, after)""".encode()

_KIND = f"select id from {SCHEMA}.workflow_run where type = 'past.kind3.v1' order by id"


def finished(ground: Ground) -> Iterator[Figure]:
    """Drain with finished runs in the table, ÷ without; and how long the server takes to list, count and show."""
    count = ground.sizes.finished
    with ground.place() as empty, ground.place() as full:
        load_finished(ground, full.url, count)
        empty.settle()
        full.settle()
        cases = {"full": lambda: full.drain(NOOP), "empty": lambda: empty.drain(NOOP)}
        values = in_turns(ground.sizes.rounds, cases)
        yield ratio(f"{count:,} finished ÷ empty", values["full"], values["empty"], LEAST)
        yield rates(f"{count:,} finished", values["full"])
        yield rates("empty", values["empty"])
        full.settle()
        yield from _reads(full.url, ground.sizes.rounds)


def load_finished(ground: Ground, url: str, count: int) -> None:
    """Write finished runs with their three events past the triggers, which only a superuser may."""
    name = str(conninfo_to_dict(url)["dbname"])
    with psycopg.connect(in_database(ground.superuser_url, name), autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("set synchronous_commit = off")  # of this session: what is measured comes later
        conn.execute("set work_mem = '256MB'")
        for first in range(1, count + 1, CHUNK_RUNS):
            conn.execute(_LOAD, {"first": first, "last": min(count, first + CHUNK_RUNS - 1), "all": count})


def _reads(url: str, rounds: int) -> Iterator[Figure]:
    """Time what the commands ask on an open session, from sending it to having read the answer."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"set statement_timeout = '{READ_SECONDS_MAX}s'".encode())
        middle = value(conn, f"{_KIND} offset (select count(*) / 2 from ({_KIND}) as kind) limit 1")
        for name, statements in _questions(middle).items():
            values = [_milliseconds(conn, statements) for _ in range(max(3, rounds))]
            yield Figure(name, "ms", values, MOST_MS)


def _questions(middle: UUID) -> dict[str, list[Statement[Any]]]:
    return {
        "wf run list": [_list()],
        "wf run list, a page from the middle": [_list(before=middle)],
        "wf run list --status failed": [_list(statuses=["failed"])],
        "wf run list --status pending (there is none)": [_list(statuses=["pending"])],
        "wf run list --status cancelled (there is none)": [_list(statuses=["cancelled"])],
        "wf run list --type, one run in ten": [_list(patterns=["past.kind3.v1"])],
        "wf run list --type 'absent.%' (there is none)": [_list(patterns=["absent.%"])],
        "wf run list --type 'absent.%' --status failed": [_list(patterns=["absent.%"], statuses=["failed"])],
        "wf run list --type 'absent.%' --status pending": [
            _list(patterns=["absent.%"], statuses=["pending"])
        ],
        "wf run list --since 2h (fewer than a page)": [
            _list(created_from=_ago(hours=2), patterns=["absent.%"])
        ],
        "wf run list --before 20d": [_list(created_before=_ago(days=20))],
        "wf run show": [get_runs([middle]), list_events(middle)],
        "wf prune --dry-run, of a day": [_count(29)],
        "wf prune --dry-run, of everything": [_count()],
        "wf prune --dry-run --type 'absent.%'": [_count(patterns=["absent.%"])],
    }


def _list(**narrowed: Any) -> Statement[Any]:
    everything: dict[str, Any] = dict.fromkeys(
        ["patterns", "statuses", "created_from", "created_before", "before"]
    )
    return list_page(**(everything | narrowed), limit=20, looks=LISTED_AT_ONCE)


def _count(days: int = 0, patterns: list[str] | None = None) -> Statement[Any]:
    return count_prunable_runs(days * 86_400.0, patterns, None, looks=COUNTED_AT_ONCE)


def _ago(**how_long: float) -> datetime:
    return datetime.now(UTC) - timedelta(**how_long)


def _milliseconds(conn: psycopg.Connection, statements: list[Statement[Any]]) -> float:
    started = time.monotonic()
    for statement in statements:
        try:
            run(conn, statement, SCHEMA)
        except psycopg.errors.QueryCanceled:
            break  # past the limit: what is reported is at least that
    return (time.monotonic() - started) * 1000
