"""What lies between this program and the database: the way there, a pooler, the two clocks."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from simpleworkflow.database import connect_async
from simpleworkflow.errors import WorkflowError
from simpleworkflow.health.finding import Finding
from simpleworkflow.sql import load_script

CLOCK_SECONDS_MAX = 1.0
PROBE_SECONDS_MAX = 3.0
SILENCE_SECONDS_MAX = 60


def examine_path(conn: psycopg.Connection[Any], conninfo: str, *, is_pooled: bool) -> Iterator[Finding]:
    """Yield what is to be said about the connection; ``is_pooled``: the settings say that a pooler is there."""
    seconds, ahead = _measure(conn)
    yield Finding("connection", "ok", f"an answer takes {seconds * 1000:.1f} ms")
    yield _clock(ahead)
    yield _client_keepalives(conninfo)
    yield _pooler(conn, conninfo, is_pooled=is_pooled)


def _measure(conn: psycopg.Connection[Any]) -> tuple[float, float]:
    """Return how long an answer takes, and how far this machine's clock is ahead of the database's."""
    taken, ahead = [], []
    for _ in range(5):
        began, at = time.perf_counter(), datetime.now(UTC)
        row = conn.execute(load_script("health/clock").encode()).fetchone()
        taken.append(time.perf_counter() - began)
        assert row is not None
        ahead.append(at.timestamp() + taken[-1] / 2 - float(row[0]))
    return statistics.median(taken), statistics.median(ahead)


def _clock(ahead: float) -> Finding:
    if abs(ahead) <= CLOCK_SECONDS_MAX:
        return Finding("clock", "ok", "this machine and the database agree about the time")
    return Finding(
        "clock",
        "notice",
        f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the database's",
        "leases and due times do not depend on it; a run_at or a schedule that a client computes here does",
        "let this machine keep its time by NTP",
    )


def _client_keepalives(conninfo: str) -> Finding:
    said = conninfo_to_dict(conninfo)
    if str(said.get("keepalives", "1")) == "0":
        found = "keepalives=0 in the database URL"
    else:
        idle, interval, number = (
            int(said.get(f"keepalives_{name}") or default)
            for name, default in (("idle", 10), ("interval", 5), ("count", 3))
        )
        if idle + interval * number <= SILENCE_SECONDS_MAX or said.get("tcp_user_timeout"):
            return Finding("client keepalives", "ok", "a server that has gone without a word is noticed")
        found = f"a server that has gone without a word is noticed after {idle + interval * number} s"
    return Finding(
        "client keepalives",
        "warning",
        found,
        "a worker waits that long on a dead connection, and loses its leases",
        "take keepalives… out of the database URL; without them it is 25 s",
    )


# ── poolers ────────────────────────────────────────────────────────────────────────────────────────


def _pooler(conn: psycopg.Connection[Any], conninfo: str, *, is_pooled: bool) -> Finding:
    # A pooler makes up the process id of the sessions that it hands out; the server says its own.
    row = conn.execute(load_script("health/session").encode()).fetchone()
    is_there = row is not None and row[0] != conn.info.backend_pid
    if not is_there:
        if not is_pooled:
            return Finding("pooler", "ok", "the connection is direct")
        return Finding(
            "pooler",
            "notice",
            "SIMPLEWORKFLOW_POOLER says transaction, but the connection is direct",
            "workers do without wake-ups: an idle one starts a run only at its next poll",
            "unset SIMPLEWORKFLOW_POOLER",
        )
    if is_pooled:
        return Finding("pooler", "ok", "a pooler is in between, and SIMPLEWORKFLOW_POOLER says so")
    if asyncio.run(_changes_sessions(conninfo)):
        return Finding(
            "pooler",
            "error",
            "a pooler in transaction mode is in between, and SIMPLEWORKFLOW_POOLER does not say so",
            "wake-ups are lost, session locks leak to other clients, prepared statements fail",
            "export SIMPLEWORKFLOW_POOLER=transaction",
        )
    return Finding("pooler", "ok", "a pooler is in between; it seems to be in session mode")


async def _changes_sessions(conninfo: str) -> bool:
    """Return whether two clients are given the same session, or one client another in its next transaction."""
    try:
        return await asyncio.wait_for(_probe(conninfo), PROBE_SECONDS_MAX)
    except (TimeoutError, WorkflowError, psycopg.Error):
        return False  # the second one was kept waiting: sessions are not shared


async def _probe(conninfo: str) -> bool:
    async with await connect_async(conninfo) as first, await connect_async(conninfo) as second:
        for _ in range(5):
            before = await _session(first)
            async with second.transaction():
                taken = await _session(second)
                if taken == before or await _session(first) != before:
                    return True
    return False


async def _session(conn: psycopg.AsyncConnection[Any]) -> int:
    cursor = await conn.execute(load_script("health/session").encode())
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
