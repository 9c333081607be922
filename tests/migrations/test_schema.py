"""The committed dump says what the migrations make."""

from __future__ import annotations

import re

import psycopg
import pytest

from builders import Database
from conftest import Server
from migrations.dump import FILE, dump
from simpleworkflow.dburl import parse


def test_the_committed_dump_is_that_of_the_migrations(server: Server, database_url: str) -> None:
    with psycopg.connect(server.url) as conn:
        if conn.info.server_version // 10000 != 18:
            pytest.skip("the dump is that of PostgreSQL 18")

    text = dump(server.url, parse(database_url).schema)

    assert text == FILE.read_text(encoding="utf-8"), "run `make schema`, and read what has changed"


def test_every_function_ends_its_search_path_in_pg_temp_or_has_its_names_bound(db: Database) -> None:
    functions = db.execute(
        "select proname, prosecdef, prosqlbody is not null, proconfig, prosrc"
        " from pg_proc where pronamespace = %s::regnamespace",
        [db.schema],
    ).fetchall()

    for name, is_definer, is_bound, settings, source in functions:
        paths = [one for one in settings or [] if one.startswith("search_path=")]
        # What the planner should inline has no settings; it must not be a definer's.
        assert paths == ["search_path=pg_catalog, pg_temp"] or (is_bound and not is_definer), name
        assert not re.search(r"(?<![.\w])workflow_(run|event|registry|schedule)\s+(as|set|\()", source), name


def test_what_acts_for_the_owner_or_is_a_trigger_s_is_nobody_s_to_execute(db: Database) -> None:
    is_open = db.execute(
        "select proname, prosecdef, prorettype = 'trigger'::regtype from pg_proc"
        " where pronamespace = %s::regnamespace and has_function_privilege('public', oid, 'execute')",
        [db.schema],
    ).fetchall()

    assert [name for name, is_definer, is_trigger in is_open if is_definer or is_trigger] == []


def test_all_functions_and_tables_have_one_owner(db: Database) -> None:
    owners = db.execute(
        "select proowner from pg_proc where pronamespace = %(schema)s::regnamespace"
        " union select relowner from pg_class where relnamespace = %(schema)s::regnamespace",
        {"schema": db.schema},
    ).fetchall()

    assert len(owners) == 1
