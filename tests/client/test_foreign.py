"""A run submitted on the caller's connection is part of the caller's transaction, whatever the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any

import asyncpg
import django.conf
import psycopg
import pytest
import sqlalchemy
from django.db.utils import ConnectionHandler
from django.utils.connection import ConnectionProxy
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy.orm import Session

from builders import Database, a_run, a_type, count, status_of
from simpleworkflow import AsyncClient, Client, InvalidInput, RunNotFound
from simpleworkflow.dburl import parse

# A library opens a connection in a transaction: what to hand over as conn, and how to end the transaction.
End = Callable[[bool], Any]
Opened = tuple[Any, End]


# ── sync libraries ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def by_psycopg(url: str) -> Iterator[Opened]:
    with psycopg.connect(parse(url).conninfo, row_factory=dict_row) as conn:
        yield conn, lambda is_wanted: conn.commit() if is_wanted else conn.rollback()


@contextmanager
def by_psycopg_with_a_cursor_of_its_own(url: str) -> Iterator[Opened]:
    with psycopg.connect(parse(url).conninfo, cursor_factory=psycopg.RawCursor) as conn:
        yield conn, lambda is_wanted: conn.commit() if is_wanted else conn.rollback()


@contextmanager
def by_sqlalchemy(url: str) -> Iterator[Opened]:
    with an_engine(url) as engine, engine.connect() as conn:
        yield conn, lambda is_wanted: conn.commit() if is_wanted else conn.rollback()


@contextmanager
def by_a_sqlalchemy_session(url: str) -> Iterator[Opened]:
    with an_engine(url) as engine, Session(engine) as session:
        yield session, lambda is_wanted: session.commit() if is_wanted else session.rollback()


@contextmanager
def by_django(url: str) -> Iterator[Opened]:
    if not django.conf.settings.configured:
        django.conf.settings.configure()
        django.setup()
    words = conninfo_to_dict(parse(url).conninfo)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    settings = {names[word]: value for word, value in words.items() if word in names}
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql"} | settings})
    conn = ConnectionProxy(handler, "default")  # what django.db.connection is
    conn.set_autocommit(False)
    yield conn, lambda is_wanted: conn.commit() if is_wanted else conn.rollback()
    conn.close()


@contextmanager
def an_engine(url: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(parse(url).conninfo)
    )
    yield engine
    engine.dispose()


SYNC: list[Callable[[str], AbstractContextManager[Opened]]] = [
    by_psycopg,
    by_psycopg_with_a_cursor_of_its_own,
    by_sqlalchemy,
    by_a_sqlalchemy_session,
    by_django,
]


@pytest.mark.parametrize("library", SYNC)
def test_a_run_is_there_after_commit_and_not_before(library: Any, database_url: str, db: Database) -> None:
    with library(database_url) as (conn, end), Client(database_url) as client:
        handle = client.submit("a.run.v1", {"n": [1, "ü"]}, idempotency_key="k", conn=conn)
        before = count(db, "workflow_run")
        end(True)

        assert before == 0
        assert client.get(handle.id).payload == {"n": [1, "ü"]}


@pytest.mark.parametrize("library", SYNC)
def test_a_run_is_gone_after_rollback(library: Any, database_url: str, db: Database) -> None:
    with library(database_url) as (conn, end), Client(database_url) as client:
        handle = client.submit("a.run.v1", conn=conn)
        end(False)

        with pytest.raises(RunNotFound):
            client.get(handle.id)
        assert count(db, "workflow_event") == 0


@pytest.mark.parametrize("library", SYNC)
def test_every_change_can_be_part_of_a_transaction(library: Any, database_url: str, db: Database) -> None:
    pending, failed = a_run(db), a_run(db, status="failed")
    with library(database_url) as (conn, end), Client(database_url) as client:
        changed = [client.cancel(pending, conn=conn), client.reopen(failed, conn=conn)]
        client.submit_many([("many.run.v1", n) for n in range(6_000)], conn=conn)
        before = [status_of(db, pending), status_of(db, failed), count(db, "workflow_run")]
        end(True)

    assert changed == [True, True]
    assert before == ["pending", "failed", 2]
    after = [status_of(db, pending), status_of(db, failed), count(db, "workflow_run")]
    assert after == ["cancelled", "pending", 6_002]


@pytest.mark.parametrize("library", SYNC)
def test_what_the_database_refuses_is_our_error_whatever_the_library(
    library: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simpleworkflow.model._TYPE", NoCheck())
    with library(database_url) as (conn, end), Client(database_url) as client:
        with pytest.raises(InvalidInput, match="type: expected words"):
            client.submit("not a type", conn=conn)
        end(False)


class NoCheck:
    """A pattern that accepts everything, so that the database is what refuses."""

    def fullmatch(self, _: str) -> bool:
        return True


def test_a_connection_in_autocommit_needs_no_transaction(database_url: str, db: Database) -> None:
    with Client(database_url) as client:
        handle = client.submit("a.run.v1", conn=db)

        assert client.get(handle.id).type == "a.run.v1"


def test_many_runs_on_a_connection_that_commits_each_statement_are_refused(
    database_url: str, db: Database
) -> None:
    with Client(database_url) as client:
        with pytest.raises(InvalidInput, match="expected a connection inside a transaction"):
            client.submit_many([("a.run.v1", n) for n in range(6_000)], conn=db)

        assert count(db, "workflow_run") == 0


def test_a_handle_from_a_transaction_waits_after_its_commit(database_url: str, db: Database) -> None:
    with psycopg.connect(parse(database_url).conninfo) as conn, Client(database_url) as client:
        handle = client.submit("a.run.v1", conn=conn)
        conn.commit()
        client.cancel(handle.id)

        assert handle.wait(timeout=10).status == "cancelled"


def test_conn_needs_no_connection_of_the_client_s_own(database_url: str, db: Database) -> None:
    schema = parse(database_url).schema
    with Client("postgresql://nobody@127.0.0.1:1/nowhere", schema=schema) as client:
        handle = client.submit("a.run.v1", conn=db)

    assert status_of(db, str(handle.id)) == "pending"


@pytest.mark.parametrize("conn", ["postgresql://", 1, object(), psycopg.AsyncConnection, asyncpg.Connection])
def test_something_else_is_refused_by_naming_what_is_accepted(conn: Any, database_url: str) -> None:
    with (
        Client(database_url) as client,
        pytest.raises(TypeError, match="expected a psycopg 3 Connection, a SQL"),
    ):
        client.submit("a.run.v1", conn=conn)


# ── async libraries ────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def by_async_psycopg(url: str) -> AsyncIterator[Opened]:
    async with await psycopg.AsyncConnection.connect(parse(url).conninfo, row_factory=dict_row) as conn:
        yield conn, lambda is_wanted: conn.commit() if is_wanted else conn.rollback()


def by_async_sqlalchemy(driver: str) -> Callable[[str], AbstractAsyncContextManager[Opened]]:
    @asynccontextmanager
    async def by_connection(url: str) -> AsyncIterator[Opened]:
        async with an_async_engine(url, driver) as engine, engine.connect() as conn:
            yield conn, lambda is_wanted: conn.commit() if is_wanted else conn.rollback()

    return by_connection


def by_async_session(driver: str) -> Callable[[str], AbstractAsyncContextManager[Opened]]:
    @asynccontextmanager
    async def by_session(url: str) -> AsyncIterator[Opened]:
        async with (
            an_async_engine(url, driver) as engine,
            asyncio_of_sqlalchemy().AsyncSession(engine) as session,
        ):
            yield session, lambda is_wanted: session.commit() if is_wanted else session.rollback()

    return by_session


def asyncio_of_sqlalchemy() -> Any:
    pytest.importorskip("greenlet", reason="SQLAlchemy's asyncio needs greenlet, its extra [asyncio]")
    return pytest.importorskip("sqlalchemy.ext.asyncio")


@asynccontextmanager
async def an_async_engine(url: str, driver: str) -> AsyncIterator[Any]:
    connect: dict[str, Callable[[str], Awaitable[Any]]] = {
        "psycopg": psycopg.AsyncConnection.connect,
        "asyncpg": asyncpg.connect,
    }
    engine = asyncio_of_sqlalchemy().create_async_engine(
        f"postgresql+{driver}://", async_creator=lambda: connect[driver](parse(url).conninfo)
    )
    yield engine
    await engine.dispose()


@asynccontextmanager
async def by_asyncpg(url: str) -> AsyncIterator[Opened]:
    conn = await asyncpg.connect(parse(url).conninfo)
    # Codecs of the user's own must not matter.
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=repr, decoder=repr)
    await conn.set_type_codec("uuid", schema="pg_catalog", encoder=repr, decoder=repr)
    transaction = conn.transaction()
    await transaction.start()
    yield conn, lambda is_wanted: transaction.commit() if is_wanted else transaction.rollback()
    await conn.close()


@asynccontextmanager
async def by_an_asyncpg_pool(url: str) -> AsyncIterator[Opened]:
    pool = asyncpg.create_pool(parse(url).conninfo, min_size=1, max_size=1)
    async with pool, pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        yield conn, lambda is_wanted: transaction.commit() if is_wanted else transaction.rollback()


ASYNC: dict[str, Callable[[str], AbstractAsyncContextManager[Opened]]] = {
    "psycopg": by_async_psycopg,
    "sqlalchemy connection on psycopg": by_async_sqlalchemy("psycopg"),
    "sqlalchemy connection on asyncpg": by_async_sqlalchemy("asyncpg"),
    "sqlalchemy session on psycopg": by_async_session("psycopg"),
    "sqlalchemy session on asyncpg": by_async_session("asyncpg"),
    "asyncpg": by_asyncpg,
    "asyncpg pool": by_an_asyncpg_pool,
}


@pytest.mark.parametrize("library", ASYNC.values(), ids=ASYNC)
def test_a_run_is_there_after_commit_and_not_before_async(
    library: Any, database_url: str, db: Database
) -> None:
    async def story() -> None:
        async with library(database_url) as (conn, end), AsyncClient(database_url) as client:
            handle = await client.submit("a.run.v1", {"n": [1, "ü"]}, idempotency_key="k", conn=conn)
            before = count(db, "workflow_run")
            await end(True)

            assert before == 0
            assert (await client.get(handle.id)).payload == {"n": [1, "ü"]}

    asyncio.run(story())


@pytest.mark.parametrize("library", ASYNC.values(), ids=ASYNC)
def test_a_run_is_gone_after_rollback_async(library: Any, database_url: str, db: Database) -> None:
    async def story() -> None:
        async with library(database_url) as (conn, end), AsyncClient(database_url) as client:
            await client.submit("a.run.v1", conn=conn)
            await end(False)

    asyncio.run(story())

    assert count(db, "workflow_run") == 0


@pytest.mark.parametrize("library", ASYNC.values(), ids=ASYNC)
def test_every_change_can_be_part_of_a_transaction_async(
    library: Any, database_url: str, db: Database
) -> None:
    pending, failed = a_run(db), a_run(db, status="failed")

    async def story() -> list[bool]:
        async with library(database_url) as (conn, end), AsyncClient(database_url) as client:
            changed = [await client.cancel(pending, conn=conn), await client.reopen(failed, conn=conn)]
            await client.submit_many([("many.run.v1", n) for n in range(6_000)], conn=conn)
            await end(True)
            return changed

    assert asyncio.run(story()) == [True, True]
    after = [status_of(db, pending), status_of(db, failed), count(db, "workflow_run")]
    assert after == ["cancelled", "pending", 6_002]


@pytest.mark.parametrize("library", ASYNC.values(), ids=ASYNC)
def test_what_the_database_refuses_is_our_error_whatever_the_library_async(
    library: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simpleworkflow.model._TYPE", NoCheck())

    async def story() -> None:
        async with library(database_url) as (conn, end), AsyncClient(database_url) as client:
            with pytest.raises(InvalidInput, match="type: expected words") as caught:
                await client.submit("not a type", conn=conn)
            assert "\n" not in str(caught.value)
            await end(False)

    asyncio.run(story())


def test_a_sync_connection_is_refused_by_the_async_client(database_url: str, db: Database) -> None:
    async def story() -> None:
        async with AsyncClient(database_url) as client:
            with pytest.raises(TypeError, match="expected a psycopg 3 AsyncConnection"):
                await client.submit(a_type(), conn=db)

    asyncio.run(story())
