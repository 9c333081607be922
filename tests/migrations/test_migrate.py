"""Migrations: applied once, whoever else migrates, dies, works or keeps a transaction open meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest

import simpleworkflow.migrate as module
from builders import Database, a_held_run, a_run, claim, connect, count, finish, status_of, submit
from conftest import Server
from simpleworkflow.dburl import parse
from simpleworkflow.errors import SchemaMismatch
from simpleworkflow.migrate import check_schema, migrate, migration_sql, read_state
from simpleworkflow.sql import Migration, load_migrations
from waits import blocked, in_thread, until

LATEST = load_migrations("any")[-1].version
EVERY = list(range(1, LATEST + 1))


@pytest.fixture
def schema(server: Server) -> Iterator[str]:
    """The name of a schema that does not exist; dropped with the test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield name
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"set client_min_messages = warning; drop schema if exists {name} cascade".encode())


@pytest.fixture
def conn(server: Server, schema: str) -> Iterator[Database]:
    """A connection of the ordinary role, for ``schema``."""
    with connect(server.url_of(schema)) as conn:
        yield conn


def applied(conn: psycopg.Connection, schema: str) -> list[int]:
    rows = conn.execute(f"select version from {schema}.workflow_migration order by version".encode())
    return [row[0] for row in rows]


# ── several at once, and deaths ────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Shutdown, deploys, migrations", "five migrations at once", "P1")
@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_of_five_that_migrate_at_once_each_migration_is_applied_by_one(server, schema, conn, isolation):
    start = threading.Barrier(5)

    def one() -> list[int]:
        options = f"-cdefault_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}"
        with psycopg.connect(server.url, autocommit=True, options=options) as mine:
            start.wait()
            return [migration.version for migration in migrate(mine, schema)]

    answers = [future.result() for future in [in_thread(one) for _ in range(5)]]

    assert sorted(version for versions in answers for version in versions) == EVERY
    assert applied(conn, schema) == EVERY


@pytest.mark.fault("Shutdown, deploys, migrations", "SIGKILL of a migration that waits in its middle", "P1")
def test_a_migration_killed_in_its_middle_leaves_nothing_and_the_next_completes(server, schema, conn):
    # Given a process that waits inside the second migration, for a lock on the table,
    migrate(conn, schema, to=1)
    with connect(server.url_of(schema)) as holder:
        holder.execute("begin; lock table workflow_run in access exclusive mode")
        program = (
            "import psycopg, sys; from simpleworkflow.migrate import migrate; "
            "migrate(psycopg.connect(sys.argv[1], autocommit=True, application_name=sys.argv[2]), sys.argv[2])"
        )
        process = subprocess.Popen([sys.executable, "-c", program, server.url, schema])
        waiting = "select 1 from pg_stat_activity where application_name = %s and wait_event_type = 'Lock'"
        until(lambda: conn.execute(waiting, [schema]).fetchone() is not None, "the migration waits")

        # when it is killed,
        process.kill()
        process.wait()
        holder.execute("rollback")

    # then nothing of the second is there, and another process completes.
    answers = migrate(conn, schema)
    assert [migration.version for migration in answers] == EVERY[1:]
    check_schema(conn, schema)


@pytest.mark.fault("Shutdown, deploys, migrations", "a migration fails", "P1")
def test_a_migration_that_fails_leaves_nothing_half_done(conn, schema, monkeypatch):
    migrate(conn, schema)
    broken = Migration(LATEST + 1, "broken", f"create table {schema}.half (); select 1/0", "x")
    monkeypatch.setattr(module, "load_migrations", lambda name: [*load_migrations(name), broken])

    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(conn, schema)

    assert applied(conn, schema) == EVERY
    assert conn.execute("select to_regclass(%s)", [f"{schema}.half"]).fetchone() == (None,)


# ── versions ───────────────────────────────────────────────────────────────────────────────────────


def test_migrating_twice_does_nothing_the_second_time(conn, schema):
    first = migrate(conn, schema)

    second = migrate(conn, schema)

    assert [migration.version for migration in first] == EVERY
    assert second == []


@pytest.mark.parametrize("to", EVERY)
def test_one_may_migrate_up_to_a_version_and_go_on_later(conn, schema, to):
    first = migrate(conn, schema, to=to)
    state = read_state(conn, schema)

    second = migrate(conn, schema)

    assert [migration.version for migration in first] == EVERY[:to]
    assert state.version == to
    assert (state.problem() is None) == (to == LATEST)
    assert [migration.version for migration in second] == EVERY[to:]


@pytest.mark.parametrize("to", [0, -1, LATEST + 1])
def test_a_version_that_does_not_exist_is_refused(conn, schema, to):
    with pytest.raises(SchemaMismatch, match="expected a version from 1 to"):
        migrate(conn, schema, to=to)


def test_a_schema_without_tables_is_told_with_its_remedy(conn, schema):
    with pytest.raises(SchemaMismatch, match=r"has no workflow tables; run `wf migrate`"):
        check_schema(conn, schema)


def test_an_older_schema_is_told_with_its_remedy(conn, schema):
    migrate(conn, schema, to=2)

    with pytest.raises(
        SchemaMismatch, match=rf"is at version 2, this package needs {LATEST}; run `wf migrate`"
    ):
        check_schema(conn, schema)


@pytest.mark.fault("Shutdown, deploys, migrations", "migrating a schema that is newer", "P1")
def test_a_newer_schema_is_refused_and_left_as_it_is(conn, schema):
    migrate(conn, schema, to=3)
    conn.execute("insert into workflow_migration (version, name, checksum) values (99, 'tomorrow', 'x')")

    with pytest.raises(SchemaMismatch, match=r"at version 99, newer than this package knows.*upgrade"):
        migrate(conn, schema)
    with pytest.raises(SchemaMismatch, match="upgrade simpleworkflow"):
        check_schema(conn, schema)

    assert applied(conn, schema) == [1, 2, 3, 99]


def test_a_migration_that_was_applied_from_another_text_is_refused_before_anything_is_built_on_it(
    conn, schema
):
    migrate(conn, schema, to=3)
    conn.execute("update workflow_migration set checksum = 'another' where version = 2")

    with pytest.raises(SchemaMismatch, match="migration 2 was applied from another text"):
        migrate(conn, schema)

    assert applied(conn, schema) == [1, 2, 3]


@pytest.mark.fault("Shutdown, deploys, migrations", "a migration under runs that are held", "P1, P3")
def test_runs_survive_a_migration_from_every_version(conn, schema):
    migrate(conn, schema, to=3)
    done, held = a_run(conn, status="succeeded"), a_held_run(conn)

    migrate(conn, schema)

    assert status_of(conn, done) == "succeeded"
    assert finish(conn, held)


# ── beside work ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(
    "Shutdown, deploys, migrations", "a migration needs the table while a long transaction is open", "P7"
)
def test_a_long_transaction_delays_the_migration_and_no_claim_for_two_seconds(
    server, schema, conn, monkeypatch
):
    # Given a migration that needs the table for itself, while a transaction on it stays open,
    migrate(conn, schema)
    another = Migration(LATEST + 1, "wider", f"alter table {schema}.workflow_run add column extra int", "x")
    monkeypatch.setattr(module, "load_migrations", lambda name: [*load_migrations(name), another])
    for _ in range(4):
        submit(conn, "a.b")
    with connect(server.url_of(schema)) as holder, connect(server.url_of(schema)) as migrating:
        holder.execute("begin")
        submit(holder, "a.b")

        # when it is tried, and gives way and tries again,
        migration = in_thread(lambda: migrate(migrating, schema))
        stalls = []
        for _ in range(3):
            blocked(holder, migrating)
            began = time.monotonic()
            assert claim(conn) is not None
            stalls.append(time.monotonic() - began)
        holder.execute("commit")

        # then no claim has waited longer than the migration may wait for its lock, and it is applied.
        assert max(stalls) < 2
        assert [one.version for one in migration.result(timeout=30)] == [LATEST + 1]


def test_two_schemas_of_one_database_do_not_disturb_each_other(server, schema, conn, database_url):
    migrate(conn, schema)
    with connect(database_url) as neighbour:
        # Given an idle worker here, and one that migrates there,
        neighbour.execute(f"listen {neighbour.schema}".encode())
        neighbour.execute(
            f"select pg_advisory_lock(hashtextextended('{neighbour.schema}.hungry', 0))".encode()
        )
        conn.execute("begin")
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema}.migrate"])

        # when runs come there, then here,
        submit(conn, "there.a")
        with connect(database_url) as producer:
            submit(producer, "here.a")
            assert migrate(producer, neighbour.schema) == []
        conn.execute("commit")
        [told] = list(neighbour.notifies(timeout=10, stop_after=1))

        # then each is seen on its own side alone.
        assert (told.channel, told.payload) == (neighbour.schema, "wake here.a")
        assert count(conn, "workflow_run") == count(neighbour, "workflow_run") == 1
        assert claim(conn, pattern="here.%") is None


def test_a_role_that_may_not_create_schemas_migrates_one_that_exists(server, schema):
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    role = f"plain_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.superuser_url, autocommit=True) as superuser:
        superuser.execute(
            f"create role {role} login password 'plain'; create schema {schema} authorization {role}"
        )
        try:
            conninfo = psycopg.conninfo.make_conninfo(parse(server.url).conninfo, user=role, password="plain")
            with psycopg.connect(conninfo, autocommit=True) as plain:
                may_create = plain.execute(
                    "select has_database_privilege(current_database(), 'create')"
                ).fetchone()

                answers = migrate(plain, schema)

                check_schema(plain, schema)
        finally:
            superuser.execute("set client_min_messages = warning")
            superuser.execute(f"drop schema {schema} cascade; drop owned by {role}; drop role {role}")

    assert may_create == (False,)
    assert [migration.version for migration in answers] == EVERY


def test_a_migrated_schema_asks_for_no_extension(conn, schema):
    before = conn.execute("select extname from pg_extension order by 1").fetchall()

    migrate(conn, schema)

    assert conn.execute("select extname from pg_extension order by 1").fetchall() == before


def test_the_script_for_psql_makes_the_same_schema(server, conn, schema):
    script = migration_sql(schema).replace("\\set ON_ERROR_STOP on", "")

    conn.execute(script.encode())

    check_schema(conn, schema)
    held = a_held_run(conn)
    assert finish(conn, held)
