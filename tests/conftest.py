"""A real PostgreSQL for the tests, and a schema of its own for each that asks.

``DATABASE_URL``, where it is set, names the server (and ``DATABASE_SUPERUSER_URL`` a superuser of it, for the
tests that plant faults); otherwise the embedded server is started in a temporary folder.  Of several test processes
each has a database of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from builders import Database, connect, direct
from simpleworkflow import embedded
from simpleworkflow.dburl import parse
from simpleworkflow.migrate import migrate

pytest_plugins = ["matrix"]

# Tests that start, kill and time programs: in two rows, each one after the other, while a third test process runs
# all the rest.
PROGRAMS = frozenset({"cli", "embedded", "kills", "worker"})
FAULTS = frozenset({"chaos", "faults"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of programs to two of the three test processes (see the Makefile)."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        group = "programs" if folder in PROGRAMS else "faults" if folder in FAULTS else folder
        item.add_marker(pytest.mark.xdist_group(group))


@dataclass(frozen=True)
class Server:
    """A server for the tests: two URLs without a schema; only some have a superuser's."""

    url: str = field(repr=False)
    superuser_url: str | None = field(repr=False)

    def url_of(self, schema: str, *, superuser: bool = False) -> str:
        """Return the URL with ``?schema=``."""
        url = self.superuser_url if superuser else self.url
        assert url is not None
        return f"{url}{'&' if '?' in url else '?'}schema={schema}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that ``DATABASE_URL`` names, else an embedded one that is gone after the session."""
    url = os.environ.get("DATABASE_URL")
    if url:
        named = Server(parse(url).conninfo, _superuser_url(direct(parse(url).conninfo)))
        with _own_database(named, os.environ.get("PYTEST_XDIST_WORKER", "")) as server:
            yield server
        return
    # Not pytest's folder: as root the server's account could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="wf-tests-"))
    folder.chmod(0o755)
    with embedded.start(folder / "postgres") as postgres:
        superuser_url = _in_database_of(postgres.url, postgres.superuser_url)
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("alter system set fsync = off")  # these tests crash processes, never the machine
            conn.execute("select pg_reload_conf()")
        yield Server(postgres.url, superuser_url)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_database(server: Server, worker: str) -> Iterator[Server]:
    """Yield the server with a database for one of several test processes: tests count what is done in theirs."""
    if not worker or server.superuser_url is None or direct(server.url) != server.url:
        yield server
        return
    name = f"tests_{worker}_{os.getpid()}"
    with psycopg.connect(server.url) as conn:
        owner = sql.Identifier(conn.info.user)
    with psycopg.connect(server.superuser_url, autocommit=True) as conn:
        conn.execute(
            sql.SQL("create database {} owner {} template template0").format(sql.Identifier(name), owner)
        )
        urls = (make_conninfo(one, dbname=name) for one in (server.url, server.superuser_url))
        try:
            yield Server(*(parse(one).conninfo for one in urls))
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(server: Server) -> Iterator[str]:
    """The URL of a fresh, migrated schema; everything in it is the test's own."""
    with a_schema(server) as url:
        yield url


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """An autocommit connection to the schema of ``database_url``."""
    with connect(database_url) as conn:
        yield conn


@pytest.fixture(scope="module")
def module_url(server: Server) -> Iterator[str]:
    """The URL of a schema that the tests of one module share; each uses types of its own."""
    with a_schema(server) as url:
        yield url


@pytest.fixture(scope="module")
def module_db(module_url: str) -> Iterator[Database]:
    """An autocommit connection to the schema of ``module_url``."""
    with connect(module_url) as conn:
        yield conn


@pytest.fixture
def connection(database_url: str) -> Iterator[Callable[..., Database]]:
    """Open further connections to the schema of ``database_url``; closed with the test."""
    opened: list[Database] = []

    def open_one(**parameters: Any) -> Database:
        opened.append(connect(database_url, **parameters))
        return opened[-1]

    yield open_one
    for conn in opened:
        conn.close()


@pytest.fixture
def superuser(server: Server, database_url: str) -> Iterator[Database]:
    """A superuser's connection to the schema of ``database_url``, for what nobody else may do."""
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    with connect(server.url_of(parse(database_url).schema, superuser=True)) as conn:
        yield conn


@contextmanager
def a_schema(server: Server) -> Iterator[str]:
    """Yield the URL of a fresh, migrated schema that is dropped afterwards."""
    schema = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(direct(server.url), autocommit=True) as conn:
        migrate(conn, schema)
    yield server.url_of(schema)
    with psycopg.connect(direct(server.url), autocommit=True) as conn:
        _drop(conn, schema)


def _drop(conn: psycopg.Connection[Any], schema: str) -> None:
    # A program that a test has killed may have left a session that its server has not missed yet.  An autovacuum, which
    # has no user, gives way by itself.
    conn.execute(
        "select pg_terminate_backend(pid) from (select distinct held.pid from pg_locks as held"
        " join pg_class as class on class.oid = held.relation"
        " join pg_stat_activity as session on session.pid = held.pid and session.usename is not null"
        " where class.relnamespace = to_regnamespace(%s) and held.pid <> pg_backend_pid()) as left_over",
        [schema],
    )
    conn.execute("set client_min_messages = warning")
    conn.execute("set lock_timeout = '10s'")
    conn.execute(f"drop schema if exists {schema} cascade".encode())


def _superuser_url(url: str) -> str | None:
    given = os.environ.get("DATABASE_SUPERUSER_URL")
    if given:
        return parse(given).conninfo
    with psycopg.connect(parse(url).conninfo) as conn:
        row = conn.execute("select usesuper from pg_user where usename = current_user").fetchone()
    return parse(url).conninfo if row and row[0] else None


def _in_database_of(url: str, superuser_url: str) -> str:
    dbname = str(conninfo_to_dict(url)["dbname"])
    return parse(make_conninfo(superuser_url, dbname=dbname)).conninfo
