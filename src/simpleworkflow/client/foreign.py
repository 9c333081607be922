"""Statements on a connection of the caller's: in its transaction, never retried, never committed here.

The libraries are known by the names of their classes, so that none of them is imported.  Statements take and
give plain text and numbers, so that no codec or row factory of the user's matters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
from psycopg.rows import tuple_row

from simpleworkflow.client.verbs import Plan
from simpleworkflow.database import Rows, Statement, translated
from simpleworkflow.errors import DatabaseUnavailable, InvalidInput, WorkflowError
from simpleworkflow.statements.checking import is_same_transaction, mark_transaction

__all__ = ["in_one_transaction", "run_foreign", "run_foreign_async"]

T = TypeVar("T")


def run_foreign(conn: Any, statement: Statement[T], schema: str) -> T:
    """Execute ``statement`` on a sync connection of the caller's, in its transaction if it has one.

    Raises:
        TypeError: ``conn`` is none of the accepted kinds.
        WorkflowError: one of ours, by the database's SQLSTATE; other errors pass as they are.
    """
    fetch = _one_of(_SYNC, conn, _SYNC_ACCEPTED)
    with _translated(statement, schema):
        return statement.read(fetch(conn, statement.text(schema), statement.parameters))


async def run_foreign_async(conn: Any, statement: Statement[T], schema: str) -> T:
    """Do what ``run_foreign`` does, on an async connection."""
    fetch = _one_of(_ASYNC, conn, _ASYNC_ACCEPTED)
    with _translated(statement, schema):
        return statement.read(await fetch(conn, statement.text(schema), statement.parameters))


def in_one_transaction(statements: Iterator[Statement[list[T]]]) -> Plan[list[T]]:
    """Execute several statements in the caller's transaction; answer what they read, joined.

    Raises:
        InvalidInput: there are several and the connection is in no transaction: each would be committed by itself.
    """
    first_two = list(islice(statements, 2))
    if len(first_two) == 2:
        mark = str(uuid4())
        yield mark_transaction(mark)
        if not (yield is_same_transaction(mark)):
            raise InvalidInput(
                "conn: expected a connection inside a transaction, because so many runs take several statements, "
                "got one that commits each by itself; begin a transaction first"
            )
    answers: list[T] = []
    for statement in chain(first_two, statements):
        answers += yield statement
    return answers


# ── one way of asking for each library ─────────────────────────────────────────────────────────────


def _psycopg(conn: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    # Not conn.cursor(): the user's cursor_factory may have other placeholders.
    with psycopg.Cursor(conn, row_factory=tuple_row) as cursor:
        return cursor.execute(sql.encode(), parameters).fetchall()


async def _psycopg_async(conn: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    async with psycopg.AsyncCursor(conn, row_factory=tuple_row) as cursor:
        await cursor.execute(sql.encode(), parameters)
        return await cursor.fetchall()


def _sqlalchemy(conn: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    # Through SQLAlchemy, not its driver's connection: that begins the transaction its commit() knows of.
    rows: Rows = conn.exec_driver_sql(_for_dialect(conn.dialect, sql), parameters).fetchall()
    return rows


def _sqlalchemy_session(session: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    return _sqlalchemy(session.connection(), sql, parameters)


async def _sqlalchemy_async(conn: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    result = await conn.exec_driver_sql(_for_dialect(conn.dialect, sql), parameters)
    rows: Rows = result.fetchall()
    return rows


async def _sqlalchemy_async_session(session: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    return await _sqlalchemy_async(await session.connection(), sql, parameters)


def _django(conn: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    if conn.vendor != "postgresql":
        raise TypeError(f"expected a Django connection to PostgreSQL, got one to {conn.vendor}")
    with conn.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: Rows = cursor.fetchall()
        return rows


async def _asyncpg(conn: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    return [tuple(record) for record in await conn.fetch(_numbered(sql), *parameters)]


def _for_dialect(dialect: Any, sql: str) -> str:
    if dialect.driver in ("psycopg", "psycopg_async"):
        return sql
    if dialect.driver == "asyncpg":
        return _numbered(sql)
    raise TypeError(f"expected SQLAlchemy on psycopg or asyncpg, got {dialect.name}+{dialect.driver}")


@lru_cache(maxsize=256)
def _numbered(sql: str) -> str:
    """Return the SQL with ``$1``, ``$2``, ... for each ``%s``, in their order."""
    head, *tails = sql.split("%s")
    return head + "".join(f"${number}{tail}" for number, tail in enumerate(tails, start=1))


_SYNC: dict[str, Callable[[Any, str, tuple[Any, ...]], Rows]] = {
    "psycopg.Connection": _psycopg,
    "sqlalchemy.Connection": _sqlalchemy,
    "sqlalchemy.Session": _sqlalchemy_session,
    "sqlalchemy.scoped_session": _sqlalchemy_session,
    "django.ConnectionProxy": _django,
    "django.BaseDatabaseWrapper": _django,
}
_SYNC_ACCEPTED = "a psycopg 3 Connection, a SQLAlchemy Connection or Session, or Django's connection"

_ASYNC: dict[str, Callable[[Any, str, tuple[Any, ...]], Awaitable[Rows]]] = {
    "psycopg.AsyncConnection": _psycopg_async,
    "sqlalchemy.AsyncConnection": _sqlalchemy_async,
    "sqlalchemy.AsyncSession": _sqlalchemy_async_session,
    "sqlalchemy.async_scoped_session": _sqlalchemy_async_session,
    "asyncpg.Connection": _asyncpg,
    "asyncpg.PoolConnectionProxy": _asyncpg,
}
_ASYNC_ACCEPTED = (
    "a psycopg 3 AsyncConnection, a SQLAlchemy AsyncConnection or AsyncSession, or an asyncpg Connection"
)

K = TypeVar("K")


def _one_of(kinds: dict[str, K], conn: object, accepted: str) -> K:
    for cls in type(conn).__mro__:
        if kind := kinds.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}"):
            return kind
    raise TypeError(
        f"conn: expected {accepted}, got {type(conn).__module__.partition('.')[0]}.{type(conn).__name__}"
    )


# ── errors ─────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _translated(statement: Statement[Any], schema: str) -> Iterator[None]:
    """Turn errors into ours by the SQLSTATE of the driver's error that a library has wrapped."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - any library's; raised again below
        try:
            with translated(statement, schema):
                raise _of_driver(error)
        except DatabaseUnavailable as ours:
            # In the caller's transaction it has not happened; one that commits each by itself may have done it.
            ours.is_unknown = statement.is_change
            raise ours from error
        except WorkflowError as ours:
            raise ours from error
        except Exception:  # noqa: BLE001 - not one of ours: the caller gets what its library raised
            raise error from error.__cause__


def _of_driver(error: Exception) -> Exception:
    """Return the driver's error: SQLAlchemy keeps it in ``orig``, Django and SQLAlchemy's asyncpg as the cause."""
    inner: BaseException | None = error
    while inner is not None:
        if getattr(inner, "diag", None) is not None or type(inner).__module__.startswith("asyncpg"):
            return inner if isinstance(inner, Exception) else error
        inner = getattr(inner, "orig", None) or inner.__cause__
    return error
