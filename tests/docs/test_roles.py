"""The grants of the documentation give what the page says, and no more."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest

from builders import Database, submit
from docs.pages import ROOT, blocks
from simpleworkflow.sql import load_script

ROLES = ("app", "producer")
CONTRACT = ROOT / "docs/sql-contract.md"

Connection = Callable[..., Database]


@pytest.fixture
def as_role(superuser: Database, connection: Connection) -> Iterator[Callable[[str], Database]]:
    """Connect as a role that has been granted what the page grants to it."""
    names = {role: f"docs_{role}_{secrets.token_hex(4)}" for role in ROLES}
    for name in names.values():
        superuser.execute(f"create role {name} login password 'docs'".encode())
    grants = "".join(block.text for block in blocks(CONTRACT, "sql") if block.note == "roles")
    for role, name in names.items():
        grants = grants.replace(f" to {role};", f" to {name};")
    superuser.execute(
        grants.replace(" workflow.", f" {superuser.schema}.")
        .replace("schema workflow", f"schema {superuser.schema}")
        .encode()
    )
    yield lambda role: connection(user=names[role], password="docs")
    for name in names.values():
        superuser.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
        superuser.execute(f"drop owned by {name}; drop role {name}".encode())


def test_the_page_shows_what_wf_migrate_grants() -> None:
    granted = load_script("grants", schema="workflow", role="app").splitlines()
    shown = next(block for block in blocks(CONTRACT, "sql") if block.note == "roles").text.splitlines()

    assert [line for line in granted if not line.startswith("--")] == shown


def test_the_application_records_executes_cancels_and_reads(as_role: Callable[[str], Database]) -> None:
    app = as_role("app")

    app.execute("insert into workflow_run (type) values ('example.v1'), ('example.v1')")
    app.execute("select * from submit('example.v1')")
    app.execute("select * from claim('worker', array['%'])")
    app.execute("update workflow_run set status = 'cancelled' where status = 'pending'")

    assert app.execute("select count(*) from workflow_event").fetchone() == (6,)


def test_a_producer_records_runs_and_can_do_nothing_else(
    db: Database, as_role: Callable[[str], Database]
) -> None:
    producer = as_role("producer")
    submit(db)

    row = producer.execute(
        "insert into workflow_run (type, idempotency_key) values ('example.v1', 'one')"
        " on conflict (idempotency_key) do nothing returning id"
    ).fetchone()

    assert row is not None
    with pytest.raises(psycopg.Error, match="type: expected words"):
        producer.execute("insert into workflow_run (type) values ('not a type')")
    for refused in (
        "select payload from workflow_run",
        "update workflow_run set status = 'cancelled'",
        "select from workflow_event",
        "delete from workflow_run",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            producer.execute(refused.encode())
    # Whatever acts in the owner's name is closed to it.
    assert producer.execute(
        "select array_agg(proname) from pg_proc where pronamespace = %s::regnamespace and prosecdef"
        " and prorettype <> 'trigger'::regtype and has_function_privilege(oid, 'execute')",
        [db.schema],
    ).fetchone() == (None,)
