"""What we ask of PostgreSQL is a value; only the runners that execute it have a colour.

A ``Statement`` is SQL text, its parameters, and how to read the rows that come back.  ``run`` and
``run_async`` execute one on a psycopg connection and turn the database's errors into ours.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import Row, tuple_row
from psycopg.waiting import Ready, Wait

from simpleworkflow.errors import (
    DatabaseUnavailable,
    InvalidInput,
    NotPermitted,
    SchemaMismatch,
    TransitionRefused,
    WorkflowError,
)
from simpleworkflow.session import Session
from simpleworkflow.sql import groups_by_name

__all__ = [
    "AsyncConnection",
    "Rows",
    "Statement",
    "SyncConnection",
    "connect",
    "connect_async",
    "cut_after",
    "first_line",
    "hosts_of",
    "run",
    "run_async",
    "run_async_for",
    "translated",
    "within",
]

T = TypeVar("T")
Rows = Sequence[tuple[Any, ...]]

CONNECT_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS_MIN = 2  # the driver's
_OURS: dict[str, type[WorkflowError]] = {"WF001": TransitionRefused, "WF002": InvalidInput}


@dataclass(frozen=True, slots=True)
class Statement(Generic[T]):
    """One question to the database: SQL with ``%s`` and ``{schema}`` in it, values, and the reader of its rows.

    ``is_repeatable``: sending it again after its answer was lost does no harm.  ``is_change``: whoever loses the
    answer must be told that it may have happened.
    """

    sql: str
    parameters: tuple[Any, ...] = field(repr=False)
    read: Callable[[Rows], T]
    is_repeatable: bool = False
    is_change: bool = False

    def text(self, schema: str) -> str:
        """Return the SQL for ``schema``."""
        return _in_schema(self.sql, schema)


@lru_cache(maxsize=256)
def _in_schema(sql: str, schema: str) -> str:
    return sql.replace("{schema}", schema)


def run(conn: psycopg.Connection[Any], statement: Statement[T], schema: str) -> T:
    """Execute ``statement`` on ``conn``, in its transaction if it has one; return what it reads.

    Raises:
        WorkflowError: one of ours, by the database's SQLSTATE; other errors pass as they are.
    """
    with translated(statement, schema):
        cursor = conn.cursor(row_factory=tuple_row)
        cursor.execute(statement.text(schema).encode(), statement.parameters)
        return statement.read(cursor.fetchall())


async def run_async(conn: psycopg.AsyncConnection[Any], statement: Statement[T], schema: str) -> T:
    """Do what ``run`` does, on an async connection."""
    with translated(statement, schema):
        cursor = conn.cursor(row_factory=tuple_row)
        await cursor.execute(statement.text(schema).encode(), statement.parameters)
        return statement.read(await cursor.fetchall())


async def run_async_for(
    conn: psycopg.AsyncConnection[Any], statement: Statement[T], schema: str, act: Statement[None]
) -> T:
    """Execute ``act``, which says who acts, and ``statement`` in one transaction; return what the second reads."""
    with translated():
        async with conn.transaction():
            await run_async(conn, act, schema)
            return await run_async(conn, statement, schema)


class translated:  # noqa: N801 - a context manager; from a generator it would take four times the calls
    """Turn the database's errors into ours, by SQLSTATE; works for every driver that carries one.

    ``statement`` is what is executed: of one that was not permitted it tells whose right it is.
    """

    __slots__ = ("_schema", "_statement")

    def __init__(self, statement: Statement[Any] | None = None, schema: str = "") -> None:
        self._statement = statement
        self._schema = schema

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and (ours := _translate(error, self._statement, self._schema)):
            raise ours from error


def _translate(error: Exception, statement: Statement[Any] | None, schema: str) -> WorkflowError | None:
    """Return our error for one of the database; None for any other, one of ours included."""
    sqlstate = getattr(error, "sqlstate", None)
    message = first_line(error)
    if sqlstate in _OURS:
        return _OURS[sqlstate](message)
    if sqlstate == "42501" and statement is not None:
        return NotPermitted(f"{message}{_whose_right(statement, schema)}")
    if sqlstate in ("22P02", "22P05", "22021", "22003", "22008", "23502", "54000", "22007"):
        return InvalidInput(f"the database refused a value: {message}")
    if sqlstate in ("3F000", "42P01", "42883", "42703"):
        return SchemaMismatch(f"{message}; run `wf migrate`, or name the schema that has the workflow tables")
    if _is_connection_error(error, sqlstate):
        return DatabaseUnavailable(f"the database {_why_unavailable(sqlstate)}: {message}")
    return None


def _whose_right(statement: Statement[Any], schema: str) -> str:
    found = re.search(r"\{schema\}\.(\w+)", statement.sql)
    group = groups_by_name().get(found[1]) if found else None
    return f"; this is for the members of role {schema}_{group}, or of one with its rights" if group else ""


def _why_unavailable(sqlstate: str | None) -> str:
    if sqlstate == "25006":
        return "is read-only; name its primary, or all hosts and target_session_attrs=read-write"
    is_full = sqlstate is not None and sqlstate.startswith("53")  # disk, memory, connections
    return "is out of resources" if is_full else "cannot be reached"


def _is_connection_error(error: Exception, sqlstate: str | None) -> bool:
    if sqlstate is not None:
        # Class 08: connection; 28: password; 3D000: no such database; 53: resources; 57P: shutdown, or a
        # session that was terminated; 25006: a standby, or a primary that is one no more.
        return sqlstate[:2] in ("08", "28", "53") or sqlstate[:3] == "57P" or sqlstate in ("3D000", "25006")
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def first_line(error: Exception) -> str:
    """Return what an error says, without the details: of a row that the database refused they hold all values."""
    diag = getattr(error, "diag", None)
    text = (diag.message_primary if diag else None) or str(error) or type(error).__name__
    return " ".join(text.split("\n", 1)[0].split())


def connect(conninfo: str, *, session: Session | None = None, **parameters: Any) -> SyncConnection[Any]:
    """Open one connection in autocommit mode, begun as ``session`` says.

    Raises:
        DatabaseUnavailable: it cannot be had; the message holds no secret.
    """
    with translated():
        conn = SyncConnection.connect(conninfo, **_parameters(conninfo, parameters))
        try:
            if session is not None:
                with cut_after(conn, CONNECT_TIMEOUT_SECONDS):
                    session.begin(conn)
        except BaseException:
            conn.pgconn.finish()
            raise
        return conn


async def connect_async(
    conninfo: str, *, session: Session | None = None, **parameters: Any
) -> AsyncConnection[Any]:
    """Open one async connection in autocommit mode, begun as ``session`` says.

    Raises:
        DatabaseUnavailable: it cannot be had; the message holds no secret.
    """
    connecting = asyncio.ensure_future(_open_async(conninfo, session, _parameters(conninfo, parameters)))
    try:
        with translated():
            return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        # Not left to the driver: before Python 3.12 asyncio.wait_for, in which it waits, may swallow a
        # cancellation, and whoever stops would wait for the time-out of the connection.
        connecting.cancel()
        connecting.add_done_callback(_close_unwanted)
        raise


async def _open_async(
    conninfo: str, session: Session | None, parameters: dict[str, Any]
) -> AsyncConnection[Any]:
    conn = await AsyncConnection.connect(conninfo, **parameters)
    try:
        if session is not None:
            await within(conn, CONNECT_TIMEOUT_SECONDS, session.begin_async(conn))
    except TimeoutError as error:
        conn.pgconn.finish()
        raise DatabaseUnavailable(f"the database cannot be reached: {error}") from error
    except BaseException:
        conn.pgconn.finish()
        raise
    return conn


def _close_unwanted(connecting: asyncio.Future[AsyncConnection[Any]]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().pgconn.finish()


async def within(
    conn: psycopg.AsyncConnection[Any], seconds: float | None, work: Coroutine[Any, Any, T]
) -> T:
    """Return what ``work`` on ``conn`` does; past ``seconds``, or when cancelled, the connection is cut.

    A socket that is shut down ends the work at once, whatever the server does.

    Raises:
        TimeoutError: the time is over.
    """
    loop = asyncio.get_running_loop()
    timer = None if seconds is None else loop.call_later(seconds, _cut, conn)
    try:
        return await work
    except asyncio.CancelledError:
        conn.pgconn.finish()
        raise
    except Exception as error:
        if timer is not None and loop.time() >= timer.when():
            raise TimeoutError(f"no answer within {seconds:g} s") from error
        raise
    finally:
        if timer is not None:
            timer.cancel()


class SyncConnection(psycopg.Connection[Row]):
    """A connection that does something else, once, as soon as it waits for the answer to a statement."""

    meanwhile: Callable[[], object] | None = None

    def wait(self, gen: PQGen[T], *arguments: Any, **named: Any) -> T:
        """Return what a generator of the driver does, each of whose steps waits for the socket."""
        return super().wait(gen if self.meanwhile is None else self._meanwhile(gen), *arguments, **named)

    def _meanwhile(self, gen: PQGen[T]) -> PQGen[T]:
        try:
            wanted = next(gen)
            while True:
                if wanted == Wait.R and self.meanwhile is not None:  # all is sent
                    meanwhile, self.meanwhile = self.meanwhile, None
                    meanwhile()
                wanted = gen.send((yield wanted))
        except StopIteration as ended:
            value: T = ended.value
            return value


class AsyncConnection(psycopg.AsyncConnection[Row]):
    """A connection that is closed when what uses it is cancelled; ``meanwhile`` as of ``SyncConnection``.

    The driver answers a cancellation by asking the server to cancel, and waits for a server that is silent.  To shield
    it, each statement had a task of its own and others to wait for it: a fifth of its 250 microseconds.
    """

    meanwhile: Callable[[], object] | None = None

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Return what a generator of the driver does, each of whose steps waits for the socket."""
        if timeout is not None:  # only where notifications are waited for
            return await super().wait(gen, interval, timeout)
        loop, socket_ = asyncio.get_running_loop(), self.pgconn.socket
        try:
            wanted = next(gen)
            while True:
                if wanted == Wait.R and self.meanwhile is not None:  # all is sent
                    meanwhile, self.meanwhile = self.meanwhile, None
                    meanwhile()
                wanted = gen.send(await _ready(loop, socket_, wanted))
        except StopIteration as ended:
            value: T = ended.value
            return value
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


async def _ready(loop: asyncio.AbstractEventLoop, socket_: int, wanted: Wait) -> Ready:
    """Return for what a socket is ready of that which is wanted."""
    ready: asyncio.Future[Ready] = loop.create_future()

    def is_ready(found: Ready) -> None:
        if not ready.done():
            ready.set_result(found)

    if wanted & Wait.R:
        loop.add_reader(socket_, is_ready, Ready.R)
    if wanted & Wait.W:
        loop.add_writer(socket_, is_ready, Ready.W)
    try:
        return await ready
    finally:
        if wanted & Wait.R:
            loop.remove_reader(socket_)
        if wanted & Wait.W:
            loop.remove_writer(socket_)


@contextmanager
def cut_after(conn: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Cut ``conn``, so that whoever waits for it gets an error, unless the block has ended by then."""
    timer = threading.Timer(seconds, _cut, [conn])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(conn: psycopg.BaseConnection[Any]) -> None:
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(conn.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def hosts_of(conninfo: str) -> int:
    """Return how many hosts a connection string names, to be tried one after the other."""
    said = conninfo_to_dict(conninfo)
    return str(said.get("hostaddr") or said.get("host") or "").count(",") + 1


def _parameters(conninfo: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return ``parameters`` with our defaults for what neither they nor the user's URL say."""
    defaults = {
        "autocommit": True,
        # For each of several hosts: one that is silent leaves time for the others.
        "connect_timeout": max(CONNECT_TIMEOUT_SECONDS_MIN, CONNECT_TIMEOUT_SECONDS // hosts_of(conninfo)),
        "application_name": "simpleworkflow",
    }
    # A peer that is gone without a word is noticed within half a minute.
    keepalives = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    said = conninfo_to_dict(conninfo)
    unsaid = {name: value for name, value in (defaults | keepalives).items() if name not in said}
    # Whatever a role or a variable says: a run that LATIN1 cannot hold would end each claim that comes to it.
    return unsaid | {"client_encoding": "utf8"} | parameters
