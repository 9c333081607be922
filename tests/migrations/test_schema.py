"""The committed dump says what the migrations make."""

from __future__ import annotations

import re

import psycopg
import pytest

from conftest import Server
from migrations.dump import FILE, dump
from simpleworkflow.dburl import parse


def test_the_committed_dump_is_that_of_the_migrations(server: Server, database_url: str) -> None:
    with psycopg.connect(server.url) as conn:
        if conn.info.server_version // 10000 != 18:
            pytest.skip("the dump is that of PostgreSQL 18")

    text = dump(server.url, parse(database_url).schema)

    assert text == FILE.read_text(encoding="utf-8"), "run `make schema`, and read what has changed"


def test_every_function_ends_its_search_path_in_pg_temp_and_names_its_schema(db) -> None:
    functions = db.execute(
        "select proname, prosecdef, prolang = (select oid from pg_language where lanname = 'sql'), proconfig, prosrc"
        " from pg_proc where pronamespace = %s::regnamespace",
        [db.schema],
    ).fetchall()

    for name, is_definer, is_sql, settings, source in functions:
        paths = [one for one in settings or [] if one.startswith("search_path=")]
        # What the planner should inline has no settings; it must not be a definer's.
        assert paths == ["search_path=pg_catalog, pg_temp"] or (is_sql and not is_definer), name
        assert not re.search(r"(?<![.\w])workflow_(run|event|registry|schedule)\s+(as|set|\()", source), name
