"""PostgreSQL URLs: what is read, what each tool gets, and what nobody may see."""

from __future__ import annotations

import string

import pytest
import sqlalchemy
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from simpleworkflow.dburl import check_schema_name, from_pg_environment, parse
from simpleworkflow.errors import InvalidDatabaseUrl

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "params"),
    [
        ("postgres://h/db", {"host": "h", "dbname": "db"}),
        ("postgresql://h:5433/db", {"host": "h", "port": "5433", "dbname": "db"}),
        ("postgresql+psycopg://u@h/db", {"user": "u", "host": "h", "dbname": "db"}),
        ("postgresql+asyncpg://h/db?ssl=require", {"host": "h", "dbname": "db", "sslmode": "require"}),
        ("postgresql://h/db?ssl=true", {"host": "h", "dbname": "db", "sslmode": "require"}),
        ("postgresql://h1:1,h2:2/db", {"host": "h1,h2", "port": "1,2", "dbname": "db"}),
        ("postgresql://h1,h2/db", {"host": "h1,h2", "dbname": "db"}),
        ("postgresql://h1,h2:2/db", {"host": "h1,h2", "port": ",2", "dbname": "db"}),
        (
            "postgresql://h/db?target_session_attrs=read-write",
            {"host": "h", "dbname": "db", "target_session_attrs": "read-write"},
        ),
        ("postgresql://%2Fvar%2Frun/db", {"host": "/var/run", "dbname": "db"}),
        ("postgresql:///db?host=/tmp", {"host": "/tmp", "dbname": "db"}),
        ("postgresql://[::1]:5433/db", {"host": "::1", "port": "5433", "dbname": "db"}),
        ("postgresql://[::1],[::2]/", {"host": "::1,::2"}),
        ("postgresql://", {}),
        ("postgresql:///", {}),
        ("postgresql://u@", {"user": "u"}),
        ("postgresql://:5433/", {"port": "5433"}),
        ("postgresql://u:@h/", {"user": "u", "host": "h"}),
        ("postgresql://:p@h/", {"password": "p", "host": "h"}),
        ("postgresql://u:p%40%3A%2F%3F%23%25@h/", {"user": "u", "password": "p@:/?#%", "host": "h"}),
        ("postgresql://u:p#q&r:s=t@h/", {"user": "u", "password": "p#q&r:s=t", "host": "h"}),
        ("postgresql://h/a%2Fb%20c", {"host": "h", "dbname": "a/b c"}),
        ("postgresql://h/db?user=a@tenant", {"host": "h", "dbname": "db", "user": "a@tenant"}),
        ("  postgresql://h/db\n", {"host": "h", "dbname": "db"}),
        ("host=h dbname=db password='a b'", {"host": "h", "dbname": "db", "password": "a b"}),
    ],
)
def test_every_form_that_people_write_means_the_same_to_libpq(url, params):
    parsed = parse(url)

    assert conninfo_to_dict(parsed.conninfo) == params


@pytest.mark.parametrize(
    ("url", "schema"),
    [
        ("postgresql://h/db", "workflow"),
        ("postgresql://h/db?search_path=jobs", "jobs"),
        ("postgresql://h/db?schema=jobs", "jobs"),
        ("postgresql://h/db?schema=", "workflow"),
        ("postgresql://h/db?search_path=jobs,public", "jobs"),
        ("postgresql://h/db?search_path=%22jobs%22%2Cpublic", "jobs"),
        ("postgresql://h/db?options=-csearch_path%3Djobs", "jobs"),
        ("postgresql://h/db?options=-c%20search_path%3Djobs,public", "jobs"),
        ("postgresql://h/db?options=--search-path%3Djobs", "jobs"),
        ("postgresql://h/db?options=-csearch_path%3Djobs%2C%5C%20public", "jobs"),
        ("postgresql://h/db?options=-cgeqo%3Doff", "workflow"),
        ("host=h options='-csearch_path=jobs'", "jobs"),
    ],
)
def test_the_schema_is_found_wherever_it_is_written(url, schema):
    assert parse(url).schema == schema


def test_what_libpq_gets_holds_no_search_path_but_keeps_other_options():
    url = "postgresql://h/db?options=-c%20search_path%3Djobs%20-c%20geqo%3Doff&sslmode=require"

    params = conninfo_to_dict(parse(url).conninfo)

    assert params == {"host": "h", "dbname": "db", "options": "-cgeqo=off", "sslmode": "require"}


def test_the_portable_form_sets_the_search_path_without_a_space():
    url = parse("postgresql+asyncpg://u:p%40@h:5433/db?sslmode=disable&schema=jobs")

    assert url.portable == ("postgresql://u:p%40@h:5433/db?sslmode=disable&options=-csearch_path%3Djobs")


@pytest.mark.parametrize(
    "url", ["postgresql://u:p%40@h:5433/db", "postgresql://u:p@h1:1,h2:2/db", "postgresql://u@%2Ftmp/db"]
)
def test_the_portable_form_means_the_same_to_psycopg_asyncpg_and_sqlalchemy(url):
    portable = parse(url).portable
    expected = conninfo_to_dict(portable)

    addresses, asyncpg = asyncpg_reads(portable)
    engine = sqlalchemy.create_engine(portable.replace("postgresql:", "postgresql+psycopg:"))
    _, keywords = engine.dialect.create_connect_args(engine.url)

    assert asyncpg.user == expected["user"]
    assert asyncpg.database == expected["dbname"]
    assert asyncpg.server_settings == {"options": "-csearch_path=workflow"}
    assert {str(word) for address in addresses for word in address} >= set(
        str(expected["host"]).split(",")
    ) - {"/tmp"}
    assert {name: str(value) for name, value in keywords.items() if name in expected} == expected


def asyncpg_reads(url: str):
    return connect_utils._parse_connect_dsn_and_args(
        dsn=url,
        host=None,
        port=None,
        user=None,
        password=None,
        passfile=None,
        database=None,
        ssl=None,
        service=None,
        servicefile=None,
        direct_tls=None,
        server_settings=None,
        target_session_attrs=None,
        krbsrvname=None,
        gsslib=None,
    )


def test_reading_what_was_written_changes_nothing():
    url = parse("postgresql://u:p%40@h1:1,h2:2/db?schema=jobs&options=-cgeqo%3Doff")

    assert parse(url.portable) == url


def test_another_schema_changes_only_the_schema():
    url = parse("postgresql://u:p@h/db?schema=jobs")

    changed = url.with_schema("other")

    assert changed == parse("postgresql://u:p@h/db?schema=other")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@given(user=texts, password=texts, dbname=texts)
def test_special_characters_survive_percent_encoding(user, password, dbname):
    written = "postgresql://h/?" + "&".join(
        f"{key}={''.join(f'%{byte:02x}' for byte in value.encode())}"
        for key, value in {"user": user, "password": password, "dbname": dbname}.items()
    )

    params = conninfo_to_dict(parse(written).conninfo)

    assert params == {"host": "h", "user": user, "password": password, "dbname": dbname}


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h/db",
        f"postgresql://h/db?user=u&password={SECRET}",
        f"postgresql://h/db?sslpassword={SECRET}",
        f"postgresql://u:%68unter2@h1,h2/db?password={SECRET}",
        f"host=h password={SECRET}",
    ],
)
def test_a_password_is_in_no_shown_form(url):
    parsed = parse(url)

    assert SECRET in parsed.conninfo
    assert SECRET not in f"{parsed} {parsed!r} {parsed.shown}"
    assert "***" in parsed.shown


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:pa@{SECRET}@h/db",
        f"postgresql://u:{SECRET}@x@h/db",
        f"postgresql://u:{SECRET}/x@h/db",
        f"postgresql://u:x/{SECRET}@h/db",
        f"postgresql://u:{SECRET}?x@h/db",
        f"postgresql://u:x?{SECRET}=1@h/db",
        f"postgresql://u:x?{SECRET}@h/db",
        f"postgresql://u:1?{SECRET}&a=b@h/db",
        f"postgresql://u:1?sslmode={SECRET}&{SECRET}=b@h/db",
        f"postgresql://u:1?application_name={SECRET}@h/db",
        f"postgresql://u:{SECRET}%zz@h/db",
        f"postgresql://u:{SECRET}%ff@h/db",
        f"postgresql://u:{SECRET}%00@h/db",
        f"postgresql://u:{SECRET}%0A@h/db",
        f"postgresql://u:{SECRET}\n@h/db",
        f"postgresql://u:{SECRET}\ud800@h/db",
        f"postgresql://u:{SECRET}",
        f"postgresql://u:{SECRET}@h:99999/db",
        f"postgresql://u:{SECRET}@[h/db",
        f"postgresql://u:{SECRET}@h/db?nope=1",
        f"postgresql://h/db?password={SECRET}&nope=1",
        f"postgresql://h/db?{SECRET}",
        f"postgresql://u:{SECRET}@h/db?schema=No",
        f"mysql://u:{SECRET}@h/db",
        f"postgresql:/u:{SECRET}@h/db",
        f"u:{SECRET}@h/db",
        SECRET,
        f"host=h pass={SECRET}",
        f"host=h password='{SECRET}",
        f"password={SECRET} x",
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_in_one_line_without_its_password(url):
    with pytest.raises(InvalidDatabaseUrl) as refused:
        parse(url)

    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("expected a ")
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@given(st.text(string.ascii_letters + string.digits + "@:/?#&=%[],. ", max_size=40))
def test_any_text_is_a_url_that_libpq_reads_or_is_refused(text):
    try:
        url = parse("postgresql://" + text)
    except InvalidDatabaseUrl:
        return

    assert conninfo_to_dict(url.portable) is not None
    assert parse(url.portable) == url


@pytest.mark.parametrize(
    "name", ["", "Jobs", "1a", "a-b", "a b", 'a"b', "a;b", "é", "x" * 64, "pg_jobs", "a\n"]
)
def test_a_schema_is_a_plain_identifier(name):
    with pytest.raises(InvalidDatabaseUrl, match="expected a schema name of a-z, 0-9 and _"):
        check_schema_name(name)


@pytest.mark.parametrize("env", [{}, {"PGUSER": "u", "PGPASSWORD": "p"}, {"PGHOST": ""}])
def test_an_environment_that_names_no_database_is_none(env):
    assert from_pg_environment(env) is None


def test_the_pg_variables_name_a_database():
    env = {
        "PGHOST": "h",
        "PGPORT": "1",
        "PGUSER": "u",
        "PGPASSWORD": SECRET,
        "PGSSLMODE": "require",
        "HOME": "/",
    }

    url = from_pg_environment(env)

    assert url is not None
    assert url.shown == "postgresql://u:***@h:1/?sslmode=require"
    assert SECRET in url.conninfo


def test_the_schema_in_pgoptions_is_found_and_kept_from_libpq():
    url = from_pg_environment({"PGDATABASE": "db", "PGOPTIONS": "-c search_path=jobs"})

    assert url is not None
    assert url.schema == "jobs"
    assert conninfo_to_dict(url.conninfo) == {"dbname": "db", "options": ""}


def test_with_a_service_the_rest_is_left_to_libpq():
    url = from_pg_environment({"PGSERVICE": "prod", "PGHOST": "h"})

    assert url is not None
    assert url.conninfo == "postgresql:///?service=prod"
