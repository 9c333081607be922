"""The settings: what the environment says, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from simpleworkflow.dburl import parse
from simpleworkflow.errors import InvalidDatabaseUrl, InvalidInput, WorkflowError
from simpleworkflow.settings import Setting, Settings


def test_an_empty_environment_means_the_embedded_server():
    settings = Settings.from_environment({})

    assert settings == Settings(
        database_url=None, schema="workflow", home=None, pooler=False, log_level="INFO"
    )


def test_an_empty_variable_counts_as_none():
    names = [
        "DATABASE_URL",
        "PGHOST",
        "SIMPLEWORKFLOW_SCHEMA",
        "SIMPLEWORKFLOW_HOME",
        "SIMPLEWORKFLOW_POOLER",
    ]

    settings = Settings.from_environment(dict.fromkeys(names, ""))

    assert settings == Settings.from_environment({})


def test_database_url_comes_before_the_pg_variables():
    settings = Settings.from_environment({"DATABASE_URL": "postgresql://a/x", "PGHOST": "b"})

    assert settings.database_url == parse("postgresql://a/x")


def test_the_pg_variables_are_next():
    settings = Settings.from_environment({"PGHOST": "b"})

    assert settings.database_url == parse("postgresql://b/")


@pytest.mark.parametrize(
    ("env", "schema"),
    [
        ({"DATABASE_URL": "postgresql://a/?schema=jobs"}, "jobs"),
        ({"DATABASE_URL": "postgresql://a/?schema=jobs", "SIMPLEWORKFLOW_SCHEMA": "other"}, "other"),
        ({"SIMPLEWORKFLOW_SCHEMA": "other"}, "other"),
        ({"DATABASE_URL": "postgresql://a/"}, "workflow"),
    ],
)
def test_the_schema_is_its_variable_s_else_the_url_s(env, schema):
    settings = Settings.from_environment(env)

    assert settings.schema == schema
    assert settings.database_url is None or settings.database_url.schema == schema


def test_settings_made_by_a_program_agree_with_their_url():
    settings = Settings(database_url=parse("postgresql://a/?schema=jobs"))

    assert settings.schema == "jobs"


@pytest.mark.parametrize(
    ("word", "pooler"), [("transaction", True), ("Transaction ", True), ("session", False), ("none", False)]
)
def test_only_a_transaction_pooler_changes_anything(word, pooler):
    settings = Settings.from_environment({"SIMPLEWORKFLOW_POOLER": word})

    assert settings.pooler is pooler


def test_home_may_begin_with_a_tilde():
    settings = Settings.from_environment({"SIMPLEWORKFLOW_HOME": "~/runs"})

    assert settings.home == Path.home() / "runs"


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({"DATABASE_URL": "mysql://u:hunter2@h/db"}, InvalidDatabaseUrl),
        ({"DATABASE_URL": "postgresql://u:hunter2@x@h/db"}, InvalidDatabaseUrl),
        ({"SIMPLEWORKFLOW_SCHEMA": "No Schema"}, InvalidDatabaseUrl),
        ({"SIMPLEWORKFLOW_POOLER": "yes"}, InvalidInput),
        ({"SIMPLEWORKFLOW_LOG_LEVEL": "loud"}, InvalidInput),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_its_variable(env, kind):
    (name,) = env

    with pytest.raises(kind) as refused:
        Settings.from_environment(env)

    assert str(refused.value).startswith(f"{name}: expected ")
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_program_s_bad_value_is_refused_too():
    with pytest.raises(WorkflowError, match="expected a log level of"):
        Settings(log_level="loud")


def test_the_rows_say_each_value_and_where_it_came_from_without_secrets():
    env = {
        "DATABASE_URL": "postgresql://u:hunter2@h/db?schema=jobs",
        "SIMPLEWORKFLOW_POOLER": "transaction",
        "SIMPLEWORKFLOW_LOG_LEVEL": "debug",
    }

    rows = Settings.from_environment(env).rows()

    assert rows == [
        Setting("database_url", "postgresql://u:***@h/db", "DATABASE_URL"),
        Setting("schema", "jobs", "DATABASE_URL"),
        Setting("home", "chosen by the embedded server", "default"),
        Setting("pooler", "transaction", "SIMPLEWORKFLOW_POOLER"),
        Setting("log_level", "DEBUG", "SIMPLEWORKFLOW_LOG_LEVEL"),
    ]


def test_settings_never_show_a_password():
    settings = Settings.from_environment({"DATABASE_URL": "postgresql://u:hunter2@h/db"})

    assert "hunter2" not in repr(settings)
