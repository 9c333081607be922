"""A worker dies while a claim of its own is on its way, which may bring the very runs that are taken from it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from builders import Database, Held, a_held_run, claim, column_of, direct, events_of, status_of
from simpleworkflow.resolve import Database as Place
from simpleworkflow.resolve import resolve_database
from simpleworkflow.worker import heart as hearts
from simpleworkflow.worker.heart import Heart, Watched
from simpleworkflow.worker.link import Link, Outage
from simpleworkflow.worker.slots import SlotTable
from worker.stage import eventually

SECTION = "Death, pause, leases"
DEAD = "it's dead:1:a1"
GATE = "hashtext('late claims')"


@pytest.fixture
def watched() -> Iterator[Watched]:
    table = SlotTable.create(1)
    table.announce(lease_seconds=30, grace_seconds=0)
    yield Watched(DEAD, os.getpid(), table)
    table.close()


def unpooled(url: str) -> Place:
    """Return the database past any pooler: behind one there are no sessions to wait for."""
    return replace(resolve_database(direct(url)), is_pooled=False)


def a_run_of_the_dead(db: Database) -> Held:
    return a_held_run(db, worker=DEAD, max_attempts=2)


async def expire(url: str, watched: Watched, asked: Callable[[str], object] = len, **changes: Any) -> None:
    """Let the heart take what the dead worker held; ``asked`` is told of each statement once it is answered."""
    heart = Heart(replace(unpooled(url), **changes))
    ask = heart._link.ask

    async def ask_and_tell(statement: Any) -> Any:
        answer = await ask(statement)
        asked(statement.sql)
        return answer

    heart._link.ask = ask_and_tell  # type: ignore[method-assign]
    await heart.expire(watched)
    await heart.close()


async def a_session_of_the_dead(url: str) -> Any:
    database = unpooled(url)
    link = Link(database, Outage(), deadline_seconds=60, worker_id=DEAD)
    conn = await link._connect(10)
    await conn.execute(f"set search_path = {database.schema}".encode())
    return conn


@pytest.mark.fault(SECTION, "a worker dies, its claim arrives when its runs have been taken", "P4")
@pytest.mark.parametrize("is_pooled", [True, False])
def test_a_claim_of_what_was_taken_from_its_worker_costs_no_attempt(
    db: Database, database_url: str, watched: Watched, *, is_pooled: bool
) -> None:
    held, late = a_run_of_the_dead(db), []

    def asked(sql: str) -> None:
        if ".expire(" in sql and not late:
            late.append(claim(db, worker=DEAD, pattern=held.type))

    asyncio.run(expire(database_url, watched, asked, is_pooled=is_pooled))

    assert late[0] is not None
    assert events_of(db, held) == ["created", "leased", "expired", "leased", "released"]
    assert (status_of(db, held.id), column_of(db, held.id, "attempt")) == ("pending", 1)


@pytest.mark.fault(SECTION, "a worker dies, its claim is being executed", "P4")
def test_a_claim_that_is_being_executed_is_waited_for(
    db: Database, database_url: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearts, "SESSIONS_SECONDS_MAX", 20)
    held, waits = a_run_of_the_dead(db), []
    db.execute(f"select pg_advisory_lock({GATE})".encode())

    def asked(sql: str) -> None:
        if "pg_try_advisory_xact_lock" in sql and not waits:
            waits.append(sql)
            db.execute(f"select pg_advisory_unlock({GATE})".encode())

    asyncio.run(_claim_at_the_gate_and_die(database_url, db, held.type))
    asyncio.run(expire(database_url, watched, asked))

    assert waits
    # When it was taken, nobody was left to claim it.
    assert events_of(db, held) == ["created", "leased", "expired"]
    assert status_of(db, held.id) == "pending"


@pytest.mark.fault(SECTION, "a worker dies, a fork of it keeps its sessions", "P1")
def test_a_session_that_does_not_end_holds_nobody_up(
    db: Database, database_url: str, watched: Watched
) -> None:
    held, waits = a_run_of_the_dead(db), []

    async def act() -> None:
        conn = await a_session_of_the_dead(database_url)
        async with asyncio.timeout(5):
            await expire(database_url, watched, waits.append)
        await conn.close()

    asyncio.run(act())

    assert sum("pg_try_advisory_xact_lock" in sql for sql in waits) > 1
    assert events_of(db, held) == ["created", "leased", "expired"]


async def _claim_at_the_gate_and_die(url: str, db: Database, type_: str) -> None:
    conn = await a_session_of_the_dead(url)
    # No answer before the claim, so that nothing tells the server that nobody waits for it.
    quoted = DEAD.replace("'", "''")
    claiming = f"""do $$ begin
        perform pg_advisory_xact_lock({GATE});
        perform claim('{quoted}', array['{type_}'], 1, 30);
    end $$"""
    pid = conn.info.backend_pid
    conn.pgconn.send_query(claiming.encode())
    conn.pgconn.flush()
    waiting = "select count(*) from pg_locks where pid = %s and locktype = 'advisory' and not granted"
    eventually(lambda: db.execute(waiting, [pid]).fetchone() == (1,))
    conn.pgconn.finish()
