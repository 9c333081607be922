"""The group roles: made on request, one set for each schema, never shared, renewed by a migration."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from builders import Database, attempt, connect, submit
from conftest import Server
from roles import drop_roles
from simpleworkflow.cli import main
from simpleworkflow.dburl import parse
from simpleworkflow.errors import InvalidInput, NotPermitted
from simpleworkflow.grants import create_roles, group_roles
from simpleworkflow.migrate import migrate
from simpleworkflow.sql import load_migrations
from waits import in_thread

LATEST = load_migrations("any")[-1].version


@pytest.fixture
def schema(superuser: Database) -> Iterator[str]:
    """The schema of the test; its roles are gone after it."""
    yield superuser.schema
    drop_roles(superuser, group_roles(superuser.schema))


def roles_of(db: Database, schema: str) -> list[tuple[str, bool]]:
    """Return the group roles that exist, and whether one can log in as them."""
    rows = db.execute(
        "select rolname::text, rolcanlogin from pg_roles where rolname like %s and rolname <> %s order by 1",
        [f"{schema}\\_%", f"{schema}_other"],
    )
    return [tuple(row) for row in rows]


def may(db: Database, role: str, function: str) -> bool:
    row = db.execute(
        "select bool_and(has_function_privilege(%s, oid, 'execute')) from pg_proc"
        " where proname = %s and pronamespace = %s::regnamespace",
        [role, function, db.schema],
    ).fetchone()
    return row == (True,)


def test_a_migration_makes_no_roles_unless_asked(db: Database) -> None:
    assert roles_of(db, db.schema) == []


def test_there_are_four_and_nobody_logs_in_as_them(superuser: Database, schema: str) -> None:
    made = create_roles(superuser, schema)
    again = create_roles(superuser, schema)

    assert made == again == {name: [] for name in group_roles(schema)}
    assert roles_of(superuser, schema) == [(name, False) for name in sorted(made)]


@pytest.mark.fault("Security", "five make the roles at once", "P6")
def test_five_at_once_make_four_roles(server: Server, superuser: Database, schema: str) -> None:
    start = threading.Barrier(5)

    def one() -> None:
        with connect(server.url_of(schema, superuser=True)) as mine:
            start.wait()
            create_roles(mine, schema)

    for future in [in_thread(one) for _ in range(5)]:
        future.result()

    assert len(roles_of(superuser, schema)) == 4
    assert may(superuser, f"{schema}_worker", "claim")


def test_roles_that_were_made_by_hand_are_taken_and_their_members_shown(
    superuser: Database, schema: str
) -> None:
    superuser.execute(f"create role {schema}_worker; create role {schema}_other".encode())
    superuser.execute(f"grant {schema}_worker to {schema}_other".encode())
    try:
        assert create_roles(superuser, schema)[f"{schema}_worker"] == [f"{schema}_other"]
        assert may(superuser, f"{schema}_other", "claim")
    finally:
        superuser.execute(f"drop role {schema}_other".encode())


@pytest.mark.fault("Security", "a role of that name has rights in another schema or database", "P6")
@pytest.mark.parametrize("where", ["another schema", "another database"])
def test_a_role_that_has_rights_elsewhere_is_refused_and_nothing_is_made(
    server: Server, superuser: Database, schema: str, where: str
) -> None:
    name, there = f"{schema}_reader", f"{schema}_there"
    superuser.execute(f"create role {name}".encode())
    superuser.execute(f"create {'schema' if where == 'another schema' else 'database'} {there}".encode())
    conn = superuser
    if where == "another database":
        other = psycopg.conninfo.make_conninfo(
            parse(server.url_of(schema, superuser=True)).conninfo, dbname=there
        )
        conn = psycopg.connect(other, autocommit=True)
    try:
        conn.execute(f"create table {'' if conn is not superuser else there + '.'}secrets (id int)".encode())
        conn.execute(
            f"grant select on {'' if conn is not superuser else there + '.'}secrets to {name}".encode()
        )

        with pytest.raises(InvalidInput, match=f"role {name} exists and has rights elsewhere.*another name"):
            create_roles(superuser, schema)

        assert roles_of(superuser, schema) == [(name, False)]
        assert not superuser.execute(
            "select has_schema_privilege(%s, %s, 'usage')", [name, schema]
        ).fetchone()[0]
    finally:
        conn.execute(f"drop owned by {name}".encode())
        if conn is not superuser:
            conn.close()
            superuser.execute(f"drop database {there} with (force)".encode())
        else:
            superuser.execute(f"drop schema {there} cascade".encode())


@pytest.mark.fault("Security", "two installations in one database, each with its roles", "P6")
def test_two_schemas_share_no_rights(server: Server, superuser: Database, schema: str) -> None:
    other = f"{schema}_b"
    login = f"{schema}_other"
    with connect(server.url_of(other, superuser=True)) as there:
        migrate(there, other)
        try:
            create_roles(superuser, schema)
            create_roles(there, other)
            there.execute(
                f"create role {login} login password 'x'; grant {schema}_producer to {login}".encode()
            )
            url = psycopg.conninfo.make_conninfo(parse(server.url).conninfo, user=login, password="x")
            with psycopg.connect(url, autocommit=True) as conn:
                told = [
                    attempt(conn, f"insert into {name}.workflow_run (type) values ('a.v1')")  # type: ignore[arg-type]
                    for name in (schema, other)
                ]
        finally:
            there.execute(f"set client_min_messages = warning; drop schema {other} cascade".encode())
            drop_roles(there, [login, *group_roles(other)])

    assert told == [None, "42501"]


def test_a_schema_with_a_long_name_is_refused_before_anything_is_made(superuser: Database) -> None:
    assert [len(name) for name in group_roles("s" * 54)] == [63, 61, 63, 61]
    with pytest.raises(
        InvalidInput, match=r"expected at most 54 characters.*got 55; grant to roles of your own"
    ):
        create_roles(superuser, "s" * 55)


def test_a_dropped_schema_leaves_roles_without_rights_that_can_be_dropped(
    server: Server, superuser: Database, schema: str
) -> None:
    create_roles(superuser, schema)

    superuser.execute(f"set client_min_messages = warning; drop schema {schema} cascade".encode())

    for name in group_roles(schema):
        superuser.execute(f"drop role {name}".encode())


def test_a_migration_renews_what_the_roles_in_use_have_and_no_others(
    db: Database, superuser: Database, schema: str
) -> None:
    db.execute(f"set client_min_messages = warning; drop schema {schema} cascade".encode())
    migrate(db, schema, to=LATEST - 1)
    superuser.execute(f"create role {schema}_operator; create role {schema}_worker".encode())
    superuser.execute(f"grant usage on schema {schema} to {schema}_operator".encode())

    migrate(db, schema)

    assert may(superuser, f"{schema}_operator", "cancel")
    assert not may(superuser, f"{schema}_operator", "claim")
    assert not may(superuser, f"{schema}_worker", "claim")


# ── who may not make roles ─────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Security", "a role that may not create roles is asked to", "P6")
def test_who_may_not_create_roles_is_told_and_the_printed_sql_does_it(
    db: Database, database_url: str, superuser: Database, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if db.execute(
        "select rolcreaterole or rolsuper from pg_roles where rolname = current_user"
    ).fetchone() != (False,):
        pytest.skip("the role of DATABASE_URL may create roles")

    code = main(["migrate", "--roles", "--database-url", database_url])
    told = capsys.readouterr()
    assert main(["migrate", "--roles", "--sql", "--database-url", database_url]) == 0
    script = capsys.readouterr().out

    assert (code, told.err.count("\n")) == (1, 1)
    assert (
        f"roles {', '.join(group_roles(schema))} were not made: permission denied to create role" in told.err
    )
    assert "wf migrate --roles --sql" in told.err
    assert roles_of(superuser, schema) == []
    superuser.execute(script.replace("\\set ON_ERROR_STOP on", "").encode())
    assert may(superuser, f"{schema}_producer", "submit")
    # Once they are there, the owner may grant to them without a DBA.
    superuser.execute(f"revoke execute on function submit from {schema}_producer".encode())
    assert main(["migrate", "--roles", "--database-url", database_url]) == 0
    assert may(superuser, f"{schema}_producer", "submit")


def test_an_application_may_not_make_roles(superuser: Database, schema: str) -> None:
    create_roles(superuser, schema)
    superuser.execute(f"grant {schema}_operator to {schema}_worker; set role {schema}_worker".encode())
    try:
        with pytest.raises(NotPermitted, match=r"were not made: "):
            create_roles(superuser, schema)
    finally:
        superuser.execute("reset role")


# ── what somebody has planted ──────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Security", "functions planted in the search_path of whoever migrates", "P6")
def test_a_migration_finds_nothing_that_was_planted_in_the_search_path(
    db: Database, superuser: Database, schema: str
) -> None:
    db.execute(f"set client_min_messages = warning; drop schema {schema} cascade".encode())
    superuser.execute(
        f"create schema {schema}_there; grant usage on schema {schema}_there to public".encode()
    )
    try:
        for planted in (
            "now() returns timestamptz language sql as $$ select 'infinity'::timestamptz $$",
            "clock_timestamp() returns timestamptz language sql as $$ select 'infinity'::timestamptz $$",
            "make_interval(secs float) returns interval language sql as $$ select interval '9 years' $$",
            "later(timestamptz, interval) returns timestamptz language sql as $$ select 'infinity'::timestamptz $$",
            "octet_length(text) returns int language sql as $$ select 0 $$",
            "uuidv7() returns uuid language sql as $$ select null::uuid $$",
            "gen_random_uuid() returns uuid language sql as $$ select null::uuid $$",
            "current_setting(text, boolean) returns text language sql as $$ select 'finish' $$",
        ):
            superuser.execute(f"create function {schema}_there.{planted}".encode())
        superuser.execute(
            f"create operator {schema}_there.+ (leftarg = timestamptz, rightarg = interval,"
            f" function = {schema}_there.later)".encode()
        )
        db.execute(f"set search_path = {schema}_there, pg_catalog".encode())
        migrate(db, schema)

        db.execute(f"set search_path = {schema}_there, pg_catalog, {schema}".encode())
        run_id = submit(db)

        assert superuser.execute(
            "select id::text from workflow_run where run_at < now() + interval '1 day'"
        ).fetchall() == [(run_id,)]
        assert attempt(db, "update workflow_run set status = 'succeeded'") == "WF001"
    finally:
        superuser.execute(f"drop schema {schema}_there cascade".encode())
