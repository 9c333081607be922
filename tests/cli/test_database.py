"""``wf migrate``, ``psql``, ``url``, ``config``, and the help of all."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import psycopg
import pytest

from cli.programs import WF
from simpleworkflow.cli.program import COMMANDS
from simpleworkflow.cli.run import COMMANDS as RUN_COMMANDS
from simpleworkflow.cli.type import COMMANDS as TYPE_COMMANDS


@pytest.fixture
def role(superuser):
    """A role with nothing granted to it."""
    name = f"wf_app_{uuid.uuid4().hex[:8]}"
    superuser.execute(f"create role {name}")
    yield name
    superuser.execute(f"drop owned by {name}; drop role {name}")


def test_migrate_makes_a_schema_and_then_finds_it_up_to_date(wf, empty_url):
    first = wf("migrate", "--database-url", empty_url)
    second = wf("migrate", "--database-url", empty_url, "--json")
    check = wf("migrate", "--check", "--database-url", empty_url)

    assert "applied 0001 tables" in first.out
    assert first.out.endswith("up to date\n")
    assert second.document["applied"] == second.document["pending"] == []
    assert check.code == 0


def test_migrate_prints_only_what_is_missing(wf):
    assert "create table" in wf("migrate", "--sql", "--from", 0).out
    assert "create table" not in wf("migrate", "--sql").out


def test_migrate_grants_to_a_role_that_does_not_own_the_tables(wf, superuser, role):
    schema = superuser.schema

    said = wf("migrate", "--grant-to", role)
    document = wf("migrate", "--grant-to", role, "--json").document
    script = wf("migrate", "--sql", "--grant-to", role).out

    assert (said.code, said.out.splitlines()[0]) == (0, f"role {role} may use schema {schema!r}")
    assert document["granted_to"] == role
    assert f'to "{role}";' in script
    claim = "claim(text, text[], int, double precision, int, text, boolean)"
    assert superuser.execute(
        "select has_function_privilege(%s, %s, 'execute')",
        [role, claim],
    ).fetchone() == (True,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grant-to", "nobody_at_all"], "role 'nobody_at_all' does not exist; create it first"),
        (["--grant-to", "public"], "expected the name of a role, got 'public'"),
        (["--grant-to", "app", "--check"], "--grant-to goes with neither --check nor --to"),
        (["--grant-to", "app", "--to", 2], "--grant-to goes with neither --check nor --to"),
    ],
)
def test_a_grant_that_cannot_be_made_is_refused_in_one_line(wf, arguments, message):
    answer = wf("migrate", *arguments)

    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_psql_works_as_typed_and_its_exit_code_is_ours(program, database_url):
    found = program("psql", "-At", "-c", "SELECT count(*) FROM workflow_run", DATABASE_URL=database_url)
    refused = program("psql", "-c", "SELEC", DATABASE_URL=database_url)
    flag_for_psql = program("psql", "-c", "SELECT 1 AS one", "--csv", DATABASE_URL=database_url)

    assert (found.code, found.out) == (0, "0\n")
    assert refused.code == 1
    assert flag_for_psql.out == "one\n1\n"


def test_url_is_one_that_sets_the_search_path(wf):
    url = wf("url").out.strip()

    with psycopg.connect(url) as conn:
        assert conn.execute("select count(*) from workflow_run").fetchone() == (0,)
    assert wf("url", "--json").document["url"] == url


def test_config_shows_sources_and_no_password(wf, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://ann:secret@db/app?schema=jobs")

    shown, document = wf("config"), wf("config", "--json").document

    assert "DATABASE_URL" in shown.out
    assert "secret" not in shown.out + str(document)
    assert {"name": "schema", "value": "jobs", "source": "DATABASE_URL"} in document["settings"]


def test_the_embedded_server_is_named_on_stderr(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")

    answer = program("config", cwd=folder)

    assert "embedded PostgreSQL" in answer.out
    assert answer.err == ""


@pytest.mark.parametrize(
    "name",
    [*COMMANDS, *(f"run {name}" for name in RUN_COMMANDS), *(f"type {name}" for name in TYPE_COMMANDS)],
)
def test_every_command_has_help_with_an_example(wf, name):
    answer = wf(*name.split(), "--help")

    assert answer.code == 0
    assert "Example" in answer.out or name in ("run", "type")
    assert max(len(line) for line in answer.out.splitlines()) <= 80


def test_both_programs_exist_and_say_their_version(environment):
    for program in (WF, os.path.join(os.path.dirname(WF), "simpleworkflow")):
        ended = subprocess.run(
            [program, "--version"], env=environment, capture_output=True, text=True, check=True
        )

        assert ended.stdout.startswith("simpleworkflow ")


def test_help_imports_no_command(environment):
    code = (
        "import sys; from simpleworkflow.cli import main; main(['--help'])\n"
        "bad = {'psycopg', 'rich', 'simpleworkflow.worker', 'simpleworkflow.cli.run'} & {*sys.modules}\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
