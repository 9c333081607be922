"""What a session of ours is set to, whatever its role, its database or a pooler's last user have set.

Under SERIALIZABLE a row that a claim skips raises 40001, and a role's time-outs must not end a worker's statements.
A session of our own is set once.  Behind a transaction pooler it is everybody's, and each transaction says it anew,
in one message with its statement: PostgreSQL executes that in one transaction.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.adapt import Dumper
from psycopg.errors import QueryCanceled
from psycopg.pq import TransactionStatus

__all__ = ["Session"]

READ_COMMITTED = "read committed"
# The first setting still runs under the role's own statement_timeout, which a busy machine may exceed.
CANCELED_MAX = 4
# How values are written: NULL in the text of an array is none, and a time reads the same everywhere.
_TEXTS = {"array_nulls": "on", "datestyle": "ISO"}
# A server whose client is gone without a word notices that within half a minute too, not after two hours, and
# gives up what the session held: locks, a place among max_connections, a place in the queue of notifications.
KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
# Never waited for, and in one message with the settings; a role that may take no locks does without.
_LOCK = """do $lock$ begin
  perform pg_try_advisory_lock_shared(hashtextextended({}, 0));
exception when insufficient_privilege then null;
end $lock$"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """How to begin a session.

    ``is_pooled``: a transaction pooler is in between.  ``statement_seconds``: the server itself ends a statement
    that takes longer, and no other time-out of the role counts; None leaves them all to the role.  ``worker_id``: whose
    it is; a session of its own then holds a lock of that name, shared, by which others know that it has not ended.
    """

    is_pooled: bool
    statement_seconds: float | None = None
    worker_id: str | None = None

    def begin(self, conn: psycopg.Connection[Any]) -> None:
        """Set an open session; to be called once."""
        if self.is_pooled:
            conn.prepare_threshold = None
            conn.isolation_level = IsolationLevel.READ_COMMITTED
            conn.cursor_factory = self._cursor_class(_Cursor, conn)
            conn.adapters.register_dumper(int, _QuotedInt)
        else:
            words = self._for_session(conn)
            for _ in range(CANCELED_MAX):
                with suppress(QueryCanceled):
                    conn.execute(words)
                    return
            conn.execute(words)

    async def begin_async(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Do what ``begin`` does."""
        if self.is_pooled:
            conn.prepare_threshold = None
            await conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
            conn.cursor_factory = self._cursor_class(_AsyncCursor, conn)
            conn.adapters.register_dumper(int, _QuotedInt)
        else:
            words = self._for_session(conn)
            for _ in range(CANCELED_MAX):
                with suppress(QueryCanceled):
                    await conn.execute(words)
                    return
            await conn.execute(words)

    def _for_session(self, conn: psycopg.BaseConnection[Any]) -> bytes:
        settings = self._limits(conn) | _TEXTS | {"default_transaction_isolation": READ_COMMITTED}
        if self.statement_seconds is not None:
            settings |= {"idle_session_timeout": "0"} | KEEPALIVES
        begin = [f"set {name} = '{value}'" for name, value in settings.items()]
        if self.worker_id is not None:
            begin.append(_LOCK.format(sql.quote(self.worker_id, conn)))
        return "; ".join(begin).encode()

    def _limits(self, conn: psycopg.BaseConnection[Any]) -> dict[str, str]:
        if self.statement_seconds is None:
            return {}
        limits = {"statement_timeout": f"{self.statement_seconds * 1000:.0f}ms"}
        limits |= {"lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}
        return limits | ({"transaction_timeout": "0"} if conn.info.server_version >= 170000 else {})

    def _cursor_class(self, base: type[Any], conn: psycopg.BaseConnection[Any]) -> type[Any]:
        settings = [f"set transaction isolation level {READ_COMMITTED}"]
        settings += [f"set local {name} = '{value}'" for name, value in (self._limits(conn) | _TEXTS).items()]
        return type(base.__name__, (base,), {"preamble": "; ".join([*settings, ""]).encode()})


class _QuotedInt(Dumper):
    """Write a number as ``'-5'``: in ``-2147483648::int`` the cast comes first, and its number is out of range."""

    def dump(self, obj: int) -> bytes:
        return str(obj).encode()


class _Cursor(psycopg.ClientCursor[Any]):
    """Says in front of each statement that begins a transaction what this one is to be."""

    preamble = b""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            return super().execute(query, params, **options)
        super().execute(_after(self.preamble, query, self), params, **options)
        _go_to_last(self)
        return self


class _AsyncCursor(psycopg.AsyncClientCursor[Any]):
    """The same for an async connection."""

    preamble = b""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            return await super().execute(query, params, **options)
        await super().execute(_after(self.preamble, query, self), params, **options)
        _go_to_last(self)
        return self


def _after(preamble: bytes, query: Any, cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> bytes:
    if isinstance(query, sql.Composable):
        return preamble + query.as_bytes(cursor)
    return preamble + (query.encode() if isinstance(query, str) else query)


def _go_to_last(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    while cursor.nextset():
        pass
