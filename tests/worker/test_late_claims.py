"""A worker dies while a claim of its is on its way: nobody executes what that brings, and it costs no attempt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from builders import Database, Held, a_held_run, claim, column_of, direct, events_of, status_of
from simpleworkflow.database import connect_async
from simpleworkflow.resolve import resolve_database
from simpleworkflow.session import Session
from simpleworkflow.worker.heart import Heart, Watched
from simpleworkflow.worker.slots import SlotTable
from worker.stage import eventually

SECTION = "Death, pause, leases"
DEAD = "it's dead:1:a1"


@pytest.fixture
def watched() -> Iterator[Watched]:
    table = SlotTable.create(2)
    table.announce(lease_seconds=30, grace_seconds=0)
    yield Watched(DEAD, os.getpid(), table)
    table.close()


def of_the_dead(db: Database, watched: Watched) -> Held:
    """Return a run that the dead worker held when it died."""
    held = a_held_run(db, worker=DEAD, max_attempts=2)
    watched.table.hold(0, held.id, held.fencing_token, 0.0)
    return held


def expire(url: str, watched: Watched, *, meanwhile: Callable[[], Any] | None = None, **changes: Any) -> None:
    """Let the heart take what the dead worker held; ``meanwhile`` happens once it has taken something."""
    heart = Heart(replace(resolve_database(url), **changes))
    ask = heart._link.ask_until_answered

    async def ask_and_go_on(statement: Any) -> Any:
        answer = await ask(statement)
        if meanwhile is not None and ".expire(" in statement.sql and len(asked) == 0:
            asked.append(meanwhile())
        return answer

    async def act() -> None:
        heart._link.ask_until_answered = ask_and_go_on  # type: ignore[method-assign]
        await heart.expire(watched)
        await heart.close()

    asked: list[Any] = []
    asyncio.run(act())
    assert meanwhile is None or len(asked) == 1


@pytest.mark.fault(SECTION, "a worker dies, its claim arrives when its runs have been taken", "P4")
@pytest.mark.parametrize("is_pooled", [True, False])
def test_a_claim_that_comes_after_its_worker_died_costs_no_attempt(
    db: Database, database_url: str, watched: Watched, *, is_pooled: bool
) -> None:
    held = of_the_dead(db, watched)

    expire(
        database_url,
        watched,
        meanwhile=lambda: claim(db, worker=DEAD, pattern=held.type),
        is_pooled=is_pooled,
    )

    assert events_of(db, held) == ["created", "leased", "expired", "leased", "released"]
    assert (status_of(db, held.id), column_of(db, held.id, "attempt")) == ("pending", 1)
    again = claim(db, pattern=held.type)
    assert again is not None
    assert again.attempt == 2


@pytest.mark.fault(SECTION, "a worker dies, its claim is being executed", "P4")
def test_what_a_dead_worker_has_asked_for_is_waited_for(
    db: Database, database_url: str, watched: Watched
) -> None:
    held = of_the_dead(db, watched)
    asyncio.run(_claim_slowly_and_die(database_url, held.type))
    eventually(lambda: is_claiming(db))

    expire(database_url, watched)

    assert not is_claiming(db)
    assert events_of(db, held) == ["created", "leased", "expired"]
    assert status_of(db, held.id) == "pending"


@pytest.mark.fault(SECTION, "a worker dies, a fork of it keeps its sessions", "P1")
def test_a_session_that_does_not_end_holds_nobody_up(
    db: Database, database_url: str, watched: Watched
) -> None:
    held = of_the_dead(db, watched)

    async def act() -> None:
        conn = await _connect(database_url)
        heart = Heart(resolve_database(database_url))
        async with asyncio.timeout(5):
            await heart.expire(watched)
        await heart.close()
        await conn.close()

    asyncio.run(act())

    assert events_of(db, held) == ["created", "leased", "expired"]


async def _connect(url: str) -> Any:
    place = resolve_database(direct(url))
    session = Session(is_pooled=False, statement_seconds=5, worker_id=DEAD)
    conn = await connect_async(place.conninfo, session=session)
    await conn.execute(f"set search_path = {place.schema}")
    return conn


async def _claim_slowly_and_die(url: str, type_: str) -> None:
    conn = await _connect(url)
    # No answer before the claim, so that nothing tells the server that nobody waits for it.
    claiming = f"""do $$ begin
        perform pg_sleep(0.2);
        perform claim('{DEAD.replace("'", "''")}', array['{type_}'], 1, 30);
    end $$"""
    conn.pgconn.send_query(claiming.encode())
    conn.pgconn.flush()
    conn.pgconn.finish()


def is_claiming(db: Database) -> bool:
    return bool(
        db.execute(
            "select count(*) from pg_stat_activity where query like 'do $$ begin%pg_sleep%'"
        ).fetchall()[0][0]
    )
