"""Every role, every statement: what each may do, and that no trick gives it more.

Each case runs in a transaction that is rolled back, so that all share the same runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from builders import Database, a_held_run, a_run, attempt, cancel, connect, finish
from conftest import Server
from roles import WHO, Logins, logins

DENIED = "42501"


@pytest.fixture(scope="module")
def roles(server: Server, module_url: str) -> Iterator[Logins]:
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    with logins(server, module_url) as made:
        yield made


@pytest.fixture(scope="module")
def runs(module_db: Database) -> dict[str, str]:
    """One run in each status; the leased one is held by ``worker`` with token 1."""
    failed = a_held_run(module_db, type="a.failed.v1", payload={"secret": "Marked-payload"})
    finish(module_db, failed, status="failed", error="Marked-error")
    succeeded = a_held_run(module_db, type="a.succeeded.v1")
    finish(module_db, succeeded, result="Marked-result")
    cancelled = a_run(module_db, type="a.cancelled.v1")
    cancel(module_db, cancelled)
    return {
        "failed": failed.id,
        "succeeded": succeeded.id,
        "cancelled": cancelled,
        "leased": a_held_run(module_db, type="a.leased.v1").id,
        "pending": a_run(module_db, type="a.pending.v1", idempotency_key="a key"),
    }


# ── every statement ────────────────────────────────────────────────────────────────────────────────

PRODUCES = ("producer", "application")
WORKS = ("worker", "application")
FOLDS = ("worker", "reader", "operator", "application")
OPERATES = ("operator", "application")
READS = ("reader", "operator", "application")
CARRIES = ("worker", "operator", "application")
SEES_IDS = ("producer", *READS)
ALL = ("producer", "worker", "operator", "reader", "application")
NOBODY = ()

# name: (the statement, who may, and what those who may are told by the guard, if it refuses)
STATEMENTS: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    # the statements of the contract
    "insert": ("insert into workflow_run (type, payload) values ('a.v1', '{}')", PRODUCES, None),
    "insert returning id": ("insert into workflow_run (type) values ('a.v1') returning id", PRODUCES, None),
    "insert all six, on conflict": (
        (
            "insert into workflow_run (type, payload, idempotency_key, priority, run_at, max_attempts)"
            " values ('a.v1', '{}', 'a key', 1, now(), 5) on conflict (idempotency_key) do nothing returning id"
        ),
        PRODUCES,
        None,
    ),
    "insert an id": (
        "insert into workflow_run (id, type) values (gen_random_uuid(), 'a.v1')",
        PRODUCES,
        None,
    ),
    "cancel": (
        (
            "update workflow_run set status = 'cancelled', updated_at = now()"
            " where id = '<leased>' and status in ('pending', 'leased')"
        ),
        OPERATES,
        None,
    ),
    "cancel unguarded": (
        "update workflow_run set status = 'cancelled' where id = '<pending>'",
        OPERATES,
        None,
    ),
    "cancel an ended run": (
        "update workflow_run set status = 'cancelled' where id = '<succeeded>'",
        OPERATES,
        "WF001",
    ),
    "edit a pending run": (
        "update workflow_run set priority = 1, run_at = now(), payload = '2' where id = '<pending>'",
        OPERATES,
        None,
    ),
    "hide": ("update workflow_run set deleted_at = now() where id = '<pending>'", OPERATES, None),
    "newest runs": (
        "select id, type, status, attempt, created_at, updated_at from workflow_run order by created_at desc limit 10",
        READS,
        None,
    ),
    "events of a run": (
        "select event_type, created_at from workflow_event where workflow_id = '<failed>' order by created_at",
        READS,
        None,
    ),
    "events with data": ("select event_type, data from workflow_event", OPERATES, None),
    "failed with errors": ("select id, last_error from workflow_run where status = 'failed'", OPERATES, None),
    "whole rows": ("select * from workflow_run where status = 'pending'", OPERATES, None),
    "lapsed leases": (
        "select id, type, lease_until, leased_by from workflow_run where status = 'leased' and lease_until < now()",
        READS,
        None,
    ),
    "disable a type": (
        (
            "insert into workflow_registry (workflow_name, runtime, is_enabled) values ('b.%', 'python', false)"
            " on conflict (workflow_name) do update set is_enabled = false, updated_at = now()"
        ),
        OPERATES,
        None,
    ),
    # reading
    "ids and keys": ("select id, idempotency_key from workflow_run", SEES_IDS, None),
    "count": ("select count(*) from workflow_run", SEES_IDS, None),
    "payloads": ("select payload from workflow_run", OPERATES, None),
    "results": ("select result from workflow_run", OPERATES, None),
    "errors": ("select last_error from workflow_run", OPERATES, None),
    "statuses": ("select status from workflow_run", READS, None),
    "payloads in a condition": ("select id from workflow_run where payload::text like '%x%'", OPERATES, None),
    "errors by order": ("select id from workflow_run order by last_error", OPERATES, None),
    "results returned": (
        "update workflow_run set priority = 2 where id = '<pending>' returning result",
        OPERATES,
        None,
    ),
    "payloads as whole row": ("select run from workflow_run as run", OPERATES, None),
    "payloads as json": ("select to_jsonb(run) from workflow_run as run", OPERATES, None),
    "the registry": ("select * from workflow_registry", READS, None),
    "policies": ("select * from workflow_policy", READS, None),
    "operations": ("select * from workflow_operation", READS, None),
    "change operations": ("update workflow_operation set state = 'stopped'", NOBODY, None),
    "delete operations": ("delete from workflow_operation", NOBODY, None),
    "schedules": ("select id, schedule, next_run_at from workflow_schedule", READS, None),
    "payloads of schedules": ("select payload from workflow_schedule", OPERATES, None),
    "the version": ("select max(version) from workflow_migration", ALL, None),
    # writing what belongs to others
    "insert an ended run": (
        "insert into workflow_run (type, status, finished_at) values ('a.v1', 'succeeded', now())",
        ("application",),
        "WF001",
    ),
    "insert with a result": (
        "insert into workflow_run (type, result) values ('a.v1', '1')",
        ("application",),
        "WF001",
    ),
    "succeed by update": (
        "update workflow_run set status = 'succeeded' where id = '<leased>'",
        OPERATES,
        "WF001",
    ),
    "reopen by update": (
        "update workflow_run set status = 'pending' where id = '<failed>'",
        OPERATES,
        "WF001",
    ),
    **{
        f"write {column}": (
            f"update workflow_run set {column} = {value} where id = '<leased>'",
            ("application",),
            "WF001",
        )
        for column, value in {
            "id": "gen_random_uuid()",
            "type": "'b.v1'",
            "attempt": "0",
            "max_attempts": "9",
            "fencing_token": "9",
            "leased_by": "'me'",
            "lease_until": "now()",
            "result": "'1'",
            "last_error": "'x'",
            "created_at": "now()",
            "finished_at": "now()",
            "idempotency_key": "'x'",
            "parent_id": "id",
            "keeps_events": "false",
        }.items()
    },
    "insert a run that keeps no events": (
        "insert into workflow_run (type, keeps_events) values ('a.v1', false)",
        ("application",),
        "WF001",
    ),
    "write a policy": (
        "insert into workflow_policy (pattern, keeps_events, keeps_succeeded) values ('%', false, false)",
        NOBODY,
        None,
    ),
    "change policies": ("update workflow_policy set keeps_events = false", NOBODY, None),
    "delete policies": ("delete from workflow_policy", NOBODY, None),
    "truncate policies": ("truncate workflow_policy", NOBODY, None),
    "write a count": ("insert into workflow_count values ('a.v1', 'pending', 1)", NOBODY, None),
    "change counts": ("update workflow_count set runs = 0", NOBODY, None),
    "write a delta": (
        "insert into workflow_delta (runs, type, to_status) values (1, 'a.v1', 'pending')",
        NOBODY,
        None,
    ),
    "delete deltas": ("delete from workflow_delta", NOBODY, None),
    "change the fold": ("update workflow_fold set from_xid = '1'", NOBODY, None),
    "change rates": ("update workflow_rate set claimed = 0", NOBODY, None),
    "write a pause": ("insert into workflow_pause (pattern) values ('%')", NOBODY, None),
    "change pauses": ("update workflow_pause set reason = null", NOBODY, None),
    "lock deltas": ("lock table workflow_delta in share mode", NOBODY, None),
    "write an event": (
        "insert into workflow_event (workflow_id, event_type) values ('<leased>', 'succeeded')",
        NOBODY,
        None,
    ),
    "change events": ("update workflow_event set data = '{}'", NOBODY, None),
    "delete events": ("delete from workflow_event", NOBODY, None),
    "truncate events": ("truncate workflow_event", NOBODY, None),
    "delete runs": ("delete from workflow_run", NOBODY, None),
    "truncate runs": ("truncate workflow_run", NOBODY, None),
    "delete schedules": ("delete from workflow_schedule", NOBODY, None),
    "delete types": ("delete from workflow_registry", NOBODY, None),
    "keep a schedule": (
        "insert into workflow_schedule (type, schedule) values ('a.v1', '* * * * *')",
        OPERATES,
        None,
    ),
    "pause schedules": ("update workflow_schedule set enabled = false", OPERATES, None),
    "write a version": (
        "insert into workflow_migration (version, name, checksum) values (99, 'x', 'x')",
        NOBODY,
        None,
    ),
    # locks
    "lock runs": ("lock table workflow_run in access exclusive mode", NOBODY, None),
    "lock runs a little": ("lock table workflow_run in row exclusive mode", NOBODY, None),
    "lock events": ("lock table workflow_event in share mode", NOBODY, None),
    "lock types": ("lock table workflow_registry in access exclusive mode", NOBODY, None),
    "lock policies": ("lock table workflow_policy in share row exclusive mode", NOBODY, None),
    "lock schedules": ("lock table workflow_schedule in exclusive mode", NOBODY, None),
    "lock rows": ("select id from workflow_run for update", OPERATES, None),
    "lock rows for share": ("select id from workflow_run for key share", OPERATES, None),
    # what belongs to the owner
    "make a table": ("create table <schema>.mine (id int)", NOBODY, None),
    "make a function": (
        "create function <schema>.mine() returns int language sql as 'select 1'",
        NOBODY,
        None,
    ),
    "replace a function": (
        "create or replace function <schema>.uuid7() returns uuid language sql as 'select gen_random_uuid()'",
        NOBODY,
        None,
    ),
    "alter a function": ("alter function <schema>.uuid7() security definer", NOBODY, None),
    "make a trigger": (
        "create trigger mine before insert on workflow_run execute function suppress_redundant_updates_trigger()",
        NOBODY,
        None,
    ),
    "make a rule": ("create rule mine as on insert to workflow_run do instead nothing", NOBODY, None),
    "make a policy": ("create policy mine on workflow_run using (false)", NOBODY, None),
    "switch row security on": ("alter table workflow_run enable row level security", NOBODY, None),
    "disable triggers": ("alter table workflow_run disable trigger user", NOBODY, None),
    "drop a trigger": ("drop trigger a_guard_update on workflow_run", NOBODY, None),
    "drop a table": ("drop table workflow_event", NOBODY, None),
    "drop the schema": ("drop schema <schema> cascade", NOBODY, None),
    "own a table": ("alter table workflow_run owner to current_user", NOBODY, None),
    "make an index": ("create index on workflow_run (payload)", NOBODY, None),
    "inherit": ("create temp table mine () inherits (workflow_run)", NOBODY, None),
    "refer to runs": ("create table <mine>.others (id uuid references workflow_run)", NOBODY, None),
    "switch triggers off": ("set session_replication_role = replica", NOBODY, None),
    "become the owner": ("set role <owner>", NOBODY, None),
    "become a superuser": ("set session authorization postgres", NOBODY, None),
    "copy to a file": ("copy workflow_run (id) to '/tmp/x'", NOBODY, None),
    "copy from a program": ("copy workflow_run (type) from program 'echo x'", NOBODY, None),
    # the functions
    "submit": ("select * from submit('a.v1')", PRODUCES, None),
    "submit an existing key": ("select * from submit('a.v1', p_idempotency_key => 'a key')", PRODUCES, None),
    "submit_many": (
        "select * from submit_many('{a.v1}', array['1']::jsonb[], null, null, null, null, null)",
        PRODUCES,
        None,
    ),
    "claim": ("select id from claim('me', '{%}')", WORKS, None),
    "finish": ("select finish('me', '{<leased>}', '{1}', array['succeeded'])", WORKS, None),
    "heartbeat": ("select * from heartbeat('me', '{<leased>}', '{1}')", WORKS, None),
    "progress": ("select progress('me', '<leased>', 1, '1')", WORKS, None),
    "release": ("select release('me', '{<leased>}', '{1}')", WORKS, None),
    "exchange": (
        "select * from exchange('me', '{}', '{}', '{}', null, null, null, '{%}', 1, 30)",
        WORKS,
        None,
    ),
    "expire": ("select * from expire()", WORKS, None),
    "next_lease_until": ("select next_lease_until()", WORKS, None),
    "traceparents": ("select * from traceparents('me', '{<leased>}')", WORKS, None),
    "register_types": ("select register_types('{b.v1}')", WORKS, None),
    "cancel by function": ("select * from cancel('{<pending>}')", OPERATES, None),
    "reopen by function": ("select * from reopen('{<failed>}')", OPERATES, None),
    "prune": ("select * from prune(now())", OPERATES, None),
    "count_prunable": ("select count_prunable(now())", OPERATES, None),
    "set_policy": ("select set_policy('b.%', false, false)", OPERATES, None),
    "drop_policy": ("select drop_policy('b.%')", OPERATES, None),
    "list_policies": ("select * from list_policies()", READS, None),
    "operate": ("select operate('cancel', '{b.v1}', 'why')", OPERATES, None),
    "count_operable": ("select count_operable('cancel', '{b.v1}')", OPERATES, None),
    "stop_operation": ("select stop_operation(gen_random_uuid())", OPERATES, None),
    "next_upkeep": ("select next_upkeep()", CARRIES, None),
    "carry_operation": ("select carry_operation('me')", CARRIES, None),
    "list_operations": ("select * from list_operations()", READS, None),
    "walk_runs": ("select walk_runs('cancel', '{}', now(), '{}', 1, 1)", NOBODY, None),
    "operation_filter": ("select operation_filter('cancel', '{b.v1}', null, null, null)", NOBODY, None),
    "change_runs": ("select change_runs(null, '{<pending>}')", NOBODY, None),
    "left_of": ("select left_of(null, '{<pending>}')", NOBODY, None),
    "cancel_for": ("select cancel_for('{<pending>}', 'why', '{}')", NOBODY, None),
    "reopen_for": ("select reopen_for('{<failed>}', 1, 'why', '{}')", NOBODY, None),
    "replace_policy": ("select replace_policy('b.%', false, false)", NOBODY, None),
    "write_policies": ("select write_policies()", NOBODY, None),
    "is_deleted_on_success": ("select is_deleted_on_success('b.v1')", NOBODY, None),
    "delete_succeeded": (
        "select delete_succeeded('worker', '{<leased>}', '{1}', array['succeeded'])",
        NOBODY,
        None,
    ),
    "lock_due_runs": ("select * from lock_due_runs('{%}', 1, now(), null)", NOBODY, None),
    "get_runs": ("select * from get_runs('{<failed>}')", READS, None),
    "list_runs": ("select * from list_runs()", READS, None),
    "list_page": ("select * from list_page()", READS, None),
    "find_runs": ("select * from find_runs()", READS, None),
    "list_events": ("select * from list_events('<failed>')", READS, None),
    "ended_runs": ("select * from ended_runs('{<failed>}')", READS, None),
    "verify": ("select * from verify()", OPERATES, None),
    "counts": ("select * from counts()", READS, None),
    "stats": ("select * from stats()", READS, None),
    "types": ("select * from types()", READS, None),
    "list_pauses": ("select * from list_pauses()", READS, None),
    "fold": ("select fold()", FOLDS, None),
    "pause": ("select pause('b.%')", OPERATES, None),
    "resume": ("select resume('b.%')", OPERATES, None),
    "recount": ("select recount()", OPERATES, None),
    "add_key": (f"select add_key('k', 'reader', '{'0' * 64}')", OPERATES, None),
    "revoke_key": ("select revoke_key('k')", OPERATES, None),
    "list_keys": ("select * from list_keys()", READS, None),
    "stream_place": ("select * from stream_place()", READS, None),
    "forget_rates": ("select forget_rates(now(), now())", NOBODY, None),
    "miscounts": ("select * from miscounts()", READS, None),
    "register_worker": ("select register_worker('me', '{%}', 1)", WORKS, None),
    "beat_workers": ("select beat_workers('{me}', '{0}')", WORKS, None),
    "end_workers": ("select end_workers('{me}')", WORKS, None),
    "open_transactions": ("select * from open_transactions('<pending>')", READS, None),
    "list_workers": ("select * from list_workers()", READS, None),
    "why": ("select * from why('<pending>')", READS, None),
    "workers": ("select * from workflow_worker", READS, None),
    "change workers": ("update workflow_worker set held = 0", NOBODY, None),
    "delete workers": ("delete from workflow_worker", NOBODY, None),
}


def fill(text: str, values: dict[str, str]) -> str:
    """Return a statement with the names that it stands for."""
    return re.sub(r"<(\w+)>", lambda found: values.get(found[1], found[0]), text)


@pytest.fixture(scope="module")
def playground(server: Server, roles: Logins) -> Iterator[str]:
    """A schema in which every role may make what it likes."""
    name = f"{roles.schema}_mine"
    with connect(server.url_of(roles.schema, superuser=True)) as superuser:
        superuser.execute(f"create schema {name}; grant all on schema {name} to public".encode())
        yield name
        superuser.execute(f"set client_min_messages = warning; drop schema {name} cascade".encode())


@pytest.fixture(scope="module")
def names(roles: Logins, runs: dict[str, str], module_db: Database, playground: str) -> dict[str, str]:
    """What stands in a statement between angle brackets."""
    owner = module_db.execute(
        "select relowner::regrole::text from pg_class where oid = 'workflow_run'::regclass"
    ).fetchone()
    assert owner is not None
    return runs | {"schema": roles.schema, "owner": owner[0], "mine": playground}


@pytest.mark.fault("Security", "a statement by a role", "P6")
@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("who", WHO)
def test_a_role_may_do_its_part_and_nothing_else(
    module_url: str, roles: Logins, names: dict[str, str], who: str, statement: str
) -> None:
    text, may, guarded = STATEMENTS[statement]

    told = attempt_and_undo(roles.connection(who), fill(text, names))

    # To a nobody, who may not even look into the schema, nothing of it exists.
    is_denied = told in (DENIED, "42P01", "42883", "42704") if who == "nobody" else told == DENIED
    assert is_denied if who not in may else told == guarded


def attempt_and_undo(conn: Database, *statements: str) -> str | None:
    """Execute statements in a transaction, and undo it; return the SQLSTATE of the first that was refused."""
    try:
        with conn.transaction(force_rollback=True):
            for statement in statements:
                conn.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    return None


def test_the_table_of_verdicts_names_every_function_that_acts_for_the_owner(module_db: Database) -> None:
    functions = module_db.execute(
        "select proname from pg_proc where pronamespace = %s::regnamespace and prosecdef"
        " and prorettype <> 'trigger'::regtype",
        [module_db.schema],
    ).fetchall()

    tried = " ".join(text for text, _, _ in STATEMENTS.values())
    assert [name for (name,) in functions if f"{name}(" not in tried] == []


def test_every_column_is_a_reader_s_or_part_of_the_contents(module_db: Database, roles: Logins) -> None:
    hidden = module_db.execute(
        "select relname, attname from pg_attribute join pg_class on pg_class.oid = attrelid"
        " where relnamespace = %s::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped"
        " and not has_column_privilege(%s, attrelid, attnum, 'select') order by 1, 2",
        [module_db.schema, f"{module_db.schema}_reader"],
    ).fetchall()

    # Of the keys of the server a reader has what list_keys tells.
    assert [one for one in hidden if one[0] != "workflow_api_key"] == [
        ("workflow_event", "data"),
        ("workflow_run", "last_error"),
        ("workflow_run", "payload"),
        ("workflow_run", "result"),
        ("workflow_schedule", "payload"),
    ]


@pytest.mark.parametrize("table", ["workflow_run", "workflow_schedule", "workflow_registry"])
def test_an_application_may_name_every_column(module_db: Database, roles: Logins, table: str) -> None:
    missing = module_db.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
        " and not (has_column_privilege(%s, attrelid, attnum, 'insert')"
        " and has_column_privilege(%s, attrelid, attnum, 'update'))",
        [table, roles.name_of("application"), roles.name_of("application")],
    ).fetchall()

    assert missing == []


def test_nobody_has_a_right_that_is_not_in_the_files_of_grants(module_db: Database, roles: Logins) -> None:
    public = module_db.execute(
        "select count(*) from pg_class, aclexplode(relacl) where relnamespace = %s::regnamespace and grantee = 0",
        [module_db.schema],
    ).fetchone()

    assert public == (0,)


# ── tricks ─────────────────────────────────────────────────────────────────────────────────────────

# What a role may try around the refusals.  Each statement of a trick is executed though one before it was refused.
TRICKS = (
    {
        f"workflow.transition is {transition!r}": (
            f"set workflow.transition = '{transition}'",
            "set workflow.actor = 'worker'",
            "set workflow.detail = '1'",
            "update workflow_run set status = 'succeeded' where id = '<leased>'",
            "update workflow_run set status = 'cancelled' where id = '<succeeded>'",
            "update workflow_run set priority = 7 where id = '<leased>'",
            "delete from workflow_run where id = '<succeeded>'",
            "insert into workflow_event (workflow_id, event_type) values ('<leased>', 'progress')",
            "insert into workflow_policy (pattern, keeps_events, keeps_succeeded) values ('a.%', false, false)",
            "update workflow_policy set keeps_events = false",
            "insert into workflow_run (type, keeps_events) values ('a.v1', false)",
            "select set_config('workflow.transition', '', false)",
        )
        for transition in (
            "claim",
            "finish",
            "heartbeat",
            "extend",
            "expire",
            "release",
            "reopen",
            "prune",
            "progress",
            "policy",
        )
    }
    | {
        f"workflow.transition becomes {transition!r} in mid-statement": tuple(
            f"update workflow_run as run set {change}"
            f" from (select set_config('workflow.transition', '{transition}', true) as name offset 0) as said"
            f" where said.name <> '' and run.id = '{run}' {returning}"
            for change, run in (
                ("status = 'waiting'", "<leased>"),
                ("status = 'succeeded'", "<pending>"),
                ("status = 'cancelled'", "<succeeded>"),
                ("status = 'pending'", "<failed>"),
                ("status = run.status", "<leased>"),
                ("priority = run.priority", "<failed>"),
            )
            for returning in ("", "returning set_config('workflow.transition', '', true)")
        )
        for transition in ("claim", "finish", "heartbeat", "extend", "expire", "release", "reopen", "cancel")
    }
    | {
        f"workflow.transition becomes {transition!r} between the last row and its event": (
            (
                "with changed as (update workflow_run set status = 'cancelled' where id = '<pending>' returning id)"
                f" select set_config('workflow.transition', '{transition}', true),"
                " set_config('workflow.operation', '{\"by\": \"somebody else\"}', true)"
                " from (select count(*) from changed) as all_of_it"
            ),
        )
        for transition in ("claim", "cancel", "reopen", "prune")
    }
    | {
        "the audit of inserts on a table of one's own": (
            "create temp table mine (id uuid, type text)",
            (
                "create trigger mine after insert on mine referencing new table as new_runs"
                " for each statement execute function <schema>.audit_insert()"
            ),
            "insert into mine values ('<leased>', 'a.v1')",
        ),
        "the policies on a table of one's own": (
            "create temp table mine (like <schema>.workflow_run)",
            "create trigger mine before insert on mine for each row execute function <schema>.apply_policy()",
            "insert into mine (id, type) values ('<leased>', 'a.v1')",
        ),
        "the audit of transitions on a table of one's own": (
            "create temp table mine (like <schema>.workflow_run)",
            (
                "create trigger mine after update on mine referencing new table as new_runs"
                " for each statement execute function <schema>.audit_update()"
            ),
            (
                "insert into mine (id, type, payload, status, attempt, fencing_token)"
                " values ('<leased>', 'a.v1', '1', 'succeeded', 1, 1)"
            ),
            "set workflow.transition = 'finish'",
            "update mine set priority = 1",
            "reset workflow.transition",
        ),
        "the audit of cancels on a table of one's own": (
            "create temp table mine (id uuid, status text, fencing_token bigint, attempt int, leased_by text)",
            "create trigger mine after update on mine for each row execute function <schema>.audit_cancel()",
            "insert into mine values ('<leased>', 'leased', 1, 1, 'worker')",
            "update mine set status = 'cancelled'",
        ),
        "temporary tables of the same names": (
            "create temp table workflow_event (id bigint, workflow_id uuid, event_type text, data jsonb)",
            "create temp table workflow_run (id uuid, type text, status text, fencing_token bigint, leased_by text)",
            "set search_path = pg_temp, <schema>, pg_catalog",
            "select * from <schema>.finish('worker', '{<leased>}', '{1}', '{nonsense}')",
            "select * from <schema>.cancel('{<succeeded>}')",
            "update <schema>.workflow_run set status = 'succeeded' where id = '<leased>'",
        ),
        "functions and operators of one's own before those of the system": (
            "create function <mine>.clock_timestamp() returns timestamptz return 'infinity'::timestamptz",
            "create function <mine>.now() returns timestamptz return 'infinity'::timestamptz",
            "create function <mine>.current_setting(text, boolean) returns text language sql as $$ select 'finish' $$",
            "create function <mine>.set_config(text, text, boolean) returns text language sql as $$ select 'finish' $$",
            "create function <mine>.pg_trigger_depth() returns int language sql as $$ select 1 $$",
            "create function <mine>.yes(bigint, bigint) returns boolean language sql as $$ select true $$",
            "create function <mine>.yes(text, text) returns boolean language sql as $$ select true $$",
            "create function <mine>.yes(name, name) returns boolean language sql as $$ select false $$",
            "create operator <mine>.= (leftarg = bigint, rightarg = bigint, function = <mine>.yes)",
            "create operator <mine>.= (leftarg = text, rightarg = text, function = <mine>.yes)",
            "create operator <mine>.<> (leftarg = name, rightarg = name, function = <mine>.yes)",
            "set search_path = <mine>, pg_catalog, <schema>",
            "select * from <schema>.finish('another', '{<leased>}', '{99}', '{succeeded}')",
            "select * from <schema>.cancel('{<succeeded>}')",
            "update <schema>.workflow_run set status = 'succeeded' where id = '<leased>'",
            "update <schema>.workflow_run set status = 'cancelled' where id = '<succeeded>'",
            "set workflow.transition = 'finish'",
            "update <schema>.workflow_run set status = 'succeeded' where id = '<leased>'",
            "reset workflow.transition",
        ),
        "a cast of one's own": (
            "create function <mine>.as_json(text) returns jsonb language sql as $$ select '1'::jsonb $$",
            "create cast (text as jsonb) with function <mine>.as_json(text) as implicit",
            "create domain <mine>.word as text",
            "create cast (<mine>.word as jsonb) with function <mine>.as_json(text) as implicit",
            "select * from finish('worker', '{<leased>}', '{2}', '{succeeded}')",
        ),
        "a wrong fencing token": (
            "select * from finish('worker', '{<leased>}', '{0}', '{succeeded}')",
            "select * from finish('worker', '{<leased>}', '{2}', '{succeeded}')",
            "select * from finish('another', '{<leased>}', '{1}', '{succeeded}')",
            "select * from release('another', '{<leased>}', '{1}')",
            "select * from heartbeat('worker', '{<leased>}', '{2}', 1000, true)",
            "select progress('worker', '<leased>', 2, '1')",
            "select * from finish('worker', '{<succeeded>}', '{1}', '{failed}')",
            "select * from exchange('another', '{<leased>}', '{1}', '{failed}', null, null, null, '{}', 0, 30)",
        ),
        "another session user": (
            "set role <owner>",
            "set session authorization <owner>",
            "set local role <owner>",
            "select set_config('role', '<owner>', false)",
            "select set_config('session_authorization', '<owner>', false)",
            "update workflow_run set status = 'succeeded' where id = '<leased>'",
        ),
        "merge and on conflict": (
            (
                "insert into workflow_run (id, type) values ('<leased>', 'a.v1')"
                " on conflict (id) do update set status = 'succeeded'"
            ),
            (
                "insert into workflow_run (id, type) values ('<succeeded>', 'a.v1')"
                " on conflict (id) do update set priority = 1"
            ),
            (
                "merge into workflow_run as run using (values (1)) as one on run.id = '<leased>'"
                " when matched then update set status = 'succeeded'"
            ),
            "merge into workflow_run as run using (values (1)) as one on run.id = '<leased>' when matched then delete",
            "with gone as (delete from workflow_run returning id) select count(*) from gone",
        ),
        "a view, a rule and a trigger of one's own": (
            "create view <mine>.runs as select * from <schema>.workflow_run",
            "create rule leave as on update to <mine>.runs do instead nothing",
            "update <mine>.runs set status = 'succeeded'",
            (
                "create function <mine>.change() returns trigger language plpgsql as"
                " $$ begin new.status := 'succeeded'; return new; end $$"
            ),
            "create trigger z_change before update on workflow_run for each row execute function <mine>.change()",
            "update workflow_run set priority = 1 where id = '<leased>'",
        ),
        "a transition that is named for the audit of a cancel alone": (
            "create temp table mine (id uuid)",
            (
                "create function <mine>.unname() returns trigger language plpgsql as"
                " $$ begin perform set_config('workflow.transition', '', false); return null; end $$"
            ),
            "create trigger unname after insert on mine for each row execute function <mine>.unname()",
            "set workflow.transition = 'cancel'",
            "set workflow.detail = ''",
            """set workflow.operation = '{"by": "somebody else"}'""",
            (
                "with done as (update workflow_run set status = 'cancelled' where id = '<leased>' returning id)"
                " insert into mine select id from done"
            ),
            "reset workflow.transition",
            "reset workflow.operation",
        ),
        "settings that switch checks off": (
            "set session_replication_role = replica",
            "set row_security = off",
            "set check_function_bodies = off",
            "set plpgsql.variable_conflict = 'use_variable'",
            "set xmloption = document",
            "set default_transaction_isolation = 'serializable'",
            "update workflow_run set status = 'succeeded' where id = '<leased>'",
            "delete from workflow_run",
            "insert into workflow_event (workflow_id, event_type) values ('<leased>', 'succeeded')",
        ),
    }
)


@pytest.mark.fault("Security", "a trick by a role", "P3, P5, P6")
@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("who", WHO)
def test_no_trick_changes_what_a_role_may_not(
    module_url: str,
    module_db: Database,
    roles: Logins,
    names: dict[str, str],
    who: str,
    trick: str,
) -> None:
    before = everything(module_db)
    conn = roles.connection(who)

    for statement in TRICKS[trick]:
        attempt(conn, fill(statement, names))

    conn.execute("discard all")
    conn.execute(f"set search_path = {roles.schema}".encode())
    assert everything(module_db) == before


@pytest.mark.fault("Security", "a first insert whose session reads backslashes in its own way", "P3")
@pytest.mark.parametrize("type_", ["a b", "a%b", "a~b", "a\nb"])
def test_how_a_session_reads_literals_lets_no_type_pass(
    module_url: str, module_db: Database, roles: Logins, names: dict[str, str], type_: str
) -> None:
    with connect(roles.url_of("producer")) as conn:
        conn.execute(fill("set standard_conforming_strings = off", names))

        with pytest.raises(psycopg.Error, match="type: expected words"):
            conn.execute("insert into workflow_run (type) values (%s)", [type_])


def everything(db: Database) -> list[Any]:
    """Return all runs but for what is being edited by right, all events and all policies."""
    runs = db.execute("select run::text from workflow_run as run order by id").fetchall()
    events = db.execute("select event::text from workflow_event as event order by id").fetchall()
    policies = db.execute("select policy::text from workflow_policy as policy order by id").fetchall()
    return [*runs, *events, *policies]


# ── reading what is hidden ─────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Security", "contents that a role may not read, asked for in a way around", "P6")
@pytest.mark.parametrize("who", ["producer", "worker", "reader", "nobody"])
@pytest.mark.parametrize(
    "way",
    [
        "select * from get_runs(array(select id from workflow_run))",
        "select * from list_runs(p_limit => 100)",
        "select list_runs(p_limit => 100)",
        "select * from list_page(p_limit => 100)",
        "select * from list_events('<failed>')",
        "select id from workflow_run where <mine>.leak(payload)",
        "select id from workflow_run where <mine>.leak(to_jsonb(workflow_run))",
        "select payload from <mine>.through_view",
        "select refuse_values(run) from workflow_run as run",
        "select id from workflow_run where status = 'failed' and 1 / (length(last_error) - length(last_error)) > 0",
        "select most_common_vals::text from pg_stats where schemaname = '<schema>' and attname = 'payload'",
        "select query from pg_stat_activity where usename <> current_user and query like '%Marked%'",
        "select * from submit('a.v1', p_idempotency_key => 'a key')",
        "select * from cancel('{<failed>}')",
        "copy (select payload, last_error, result from workflow_run) to stdout",
        "explain (analyze, verbose) select payload from workflow_run",
    ],
)
def test_contents_are_hidden_whichever_way_they_are_asked_for(
    module_url: str, roles: Logins, names: dict[str, str], who: str, way: str
) -> None:
    told: list[str] = []
    with connect(roles.url_of(who)) as conn:
        conn.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
        with conn.transaction(force_rollback=True):
            for statement in (
                (
                    "create function <mine>.leak(jsonb) returns boolean language plpgsql cost 0.0001 as"
                    " $$ begin raise notice '%', $1; return true; end $$"
                ),
                "create view <mine>.through_view as select payload from <schema>.workflow_run",
            ):
                attempt(conn, fill(statement, names))
            try:
                with conn.transaction():
                    told += map(str, conn.execute(fill(way, names).encode()).fetchall())
            except psycopg.Error as error:
                told.append(str(error))

    assert "Marked-" not in "\n".join(told).replace("%Marked%", "")
