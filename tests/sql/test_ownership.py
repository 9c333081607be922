"""Who does not own the tables cannot go around their guards, whatever it sets, nor act in the owner's name."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from builders import Database, a_run, attempt, claim, connect, events_of, finish, status_of, submit
from conftest import Server
from simpleworkflow import resolve
from simpleworkflow.dburl import parse
from simpleworkflow.errors import InvalidInput
from simpleworkflow.grants import create_owner, grant_application
from simpleworkflow.migrate import migrate
from waits import in_thread


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


# ── who may call the functions ─────────────────────────────────────────────────────────────────────

_FUNCTIONS = """
select array_agg(proname::text order by proname) from pg_proc
 where pronamespace = %s::regnamespace and prorettype <> 'trigger'::regtype
   and prosecdef and has_function_privilege(%s, oid, 'execute')
"""
_OF_DEFINERS = [
    *("add_key", "beat_workers", "cancel", "carry_operation", "claim", "count_operable"),
    *("count_prunable", "drop_policy", "end_workers", "exchange", "expire", "finish"),
    *("fold", "heartbeat", "list_keys", "next_lease_until", "next_upkeep", "open_transactions"),
    *("operate", "pause", "progress", "prune", "recount", "register_types"),
    *("register_worker", "release", "reopen", "resume", "revoke_key", "set_policy"),
    *("stop_operation", "stream_place", "submit", "submit_many", "traceparents"),
]


@pytest.fixture
def role(superuser: Database) -> Iterator[str]:
    """A role with nothing granted to it, whose name has to be quoted."""
    name = f'Shop "app" {uuid.uuid4().hex[:8]}'
    quoted = psycopg.sql.Identifier(name)
    superuser.execute(psycopg.sql.SQL("create role {}").format(quoted))
    yield name
    superuser.execute(psycopg.sql.SQL("drop owned by {0}; drop role {0}").format(quoted))


def test_what_acts_in_the_owners_name_is_closed_to_all_but_the_application(
    db: Database, superuser: Database, role: str
) -> None:
    before = db.execute(_FUNCTIONS, [db.schema, role]).fetchone()

    grant_application(superuser, db.schema, role)

    assert before == (None,)
    assert db.execute(_FUNCTIONS, [db.schema, role]).fetchone() == (_OF_DEFINERS,)


def test_only_a_claim_may_lock_runs(db: Database, superuser: Database, role: str) -> None:
    grant_application(superuser, db.schema, role)

    superuser.execute(psycopg.sql.SQL("set role {}").format(psycopg.sql.Identifier(role)))
    error = attempt(superuser, "select lock_due_runs('{%}', 1, now(), null)")
    superuser.execute("reset role")

    assert error == "42501"


def test_granting_twice_and_by_five_at_once_does_no_harm(
    db: Database, server: Server, superuser: Database, role: str
) -> None:
    def one() -> None:
        with connect(server.url_of(db.schema)) as conn:
            for _ in range(5):
                grant_application(conn, db.schema, role)

    for future in [in_thread(one) for _ in range(5)]:
        future.result()

    assert db.execute(_FUNCTIONS, [db.schema, role]).fetchone() == (_OF_DEFINERS,)


def test_an_application_that_would_grant_is_told_that_it_may_not(application: Database) -> None:
    user = application.info.user

    with pytest.raises(
        psycopg.errors.InsufficientPrivilege, match=r"^no privileges were granted .*; connect as"
    ):
        grant_application(application, application.schema, user)


@pytest.mark.parametrize(
    "name", ["public", "none", "", "nobody_at_all", "a; drop table x", "a\nb", "a\0b", "\udcff"]
)
def test_what_is_no_role_is_refused_before_anything_is_granted(db: Database, name: str) -> None:
    with pytest.raises(InvalidInput, match="role"):
        grant_application(db, db.schema, name)

    assert db.execute(_FUNCTIONS, [db.schema, "public"]).fetchone() == (None,)


def test_a_process_that_comes_between_anothers_migration_and_its_grants_waits_and_grants(
    application: Database, server: Server, superuser: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, user = application.schema, application.info.user
    superuser.execute(f"revoke all on all tables in schema {schema} from {user}".encode())
    superuser.execute(f"revoke all on schema {schema} from {user}".encode())
    monkeypatch.setattr(resolve, "EMBEDDED_OWNER", f"{schema}_owner")

    resolve._migrate_embedded(parse(server.url_of(schema)), str(server.superuser_url))

    assert submit(application) is not None
