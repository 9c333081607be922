"""Who does not own the tables cannot go around their guards, whatever it sets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from builders import Database, a_run, attempt, claim, connect, events_of, finish, status_of, submit
from conftest import Server
from simpleworkflow.dburl import parse
from simpleworkflow.migrate import create_owner, grant_application, migrate


@pytest.fixture
def application(server: Server) -> Iterator[Database]:
    """A connection of a role that only uses the tables; another role, which cannot log in, owns them."""
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    name = f"owned_{uuid.uuid4().hex[:12]}"
    user = psycopg.conninfo.conninfo_to_dict(parse(server.url).conninfo)["user"]
    with psycopg.connect(server.superuser_url, autocommit=True) as superuser:
        create_owner(superuser, f"{name}_owner")
        migrate(superuser, name, owner=f"{name}_owner")
        grant_application(superuser, name, str(user))
        with connect(server.url_of(name)) as conn:
            yield conn
        superuser.execute(
            f"drop schema {name} cascade; drop owned by {name}_owner; drop role {name}_owner".encode()
        )


@pytest.mark.parametrize("transition", ["finish", "extend", "claim", "prune", "anything"])
def test_naming_a_transition_by_hand_opens_nothing(application: Database, transition: str) -> None:
    run_id = submit(application)

    application.execute("select set_config('workflow.transition', %s, false)", [transition])

    assert attempt(application, "update workflow_run set status = 'succeeded'") == "WF001"
    assert attempt(application, "delete from workflow_run") == "42501"
    assert (
        attempt(application, "insert into workflow_event (workflow_id, event_type) values (%s, 'x')", run_id)
        == "42501"
    )
    application.execute("reset workflow.transition")
    assert status_of(application, run_id) == "pending"
    assert events_of(application, run_id) == ["created"]


@pytest.mark.parametrize(
    "statement",
    [
        "alter table workflow_run disable trigger user",
        "drop trigger a_guard_update on workflow_run",
        "set session_replication_role = replica",
        "drop table workflow_event",
        "truncate workflow_run",
    ],
)
def test_the_guards_cannot_be_switched_off(application: Database, statement: str) -> None:
    assert attempt(application, statement) == "42501"


def test_the_application_can_do_all_that_the_contract_offers(application: Database) -> None:
    run_id = a_run(application, status="leased", type="owned.v1")
    application.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
    second = submit(application, type_="owned.v2")

    held = claim(application, pattern="owned.%")

    assert held is not None
    assert finish(application, held)
    assert events_of(application, run_id) == ["created", "leased", "cancelled"]
    assert events_of(application, second) == ["created", "leased", "succeeded"]
