"""Each fault is planted really, named by the doctor with its remedy, and healed by that remedy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

import waits
from builders import a_run, connect, lapse, submit
from simpleworkflow.migrate import migrate

SECTION = "Database and network"


def heal(superuser, finding, *, owner=None):
    """Do what the remedy says."""
    for statement in finding["remedy"].split("; "):
        (owner or superuser).execute(statement.encode())


def test_a_healthy_installation_is_silent(examine):
    found = examine("--long", "60s")

    assert found.bad == []
    assert found.code == 0


# ── settings ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "wf doctor: a setting of the server that loses runs", "P1")
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "autovacuum"])
def test_a_setting_of_the_server_that_endangers_runs_is_named(examine, superuser, setting):
    superuser.execute(f"alter system set {setting} = off".encode())
    superuser.execute("select pg_reload_conf()")
    try:
        waits.until(lambda: superuser.execute(f"show {setting}".encode()).fetchone()[0] == "off", setting)

        found = examine()

        assert found.code == 1
        assert found.one("settings")["severity"] == "error"
        assert found.one("settings")["found"] == f"{setting} = off"
        heal(superuser, found.one("settings"))
        waits.until(lambda: examine().bad == [], "the remedy works")
    finally:
        superuser.execute(f"alter system reset {setting}".encode())
        superuser.execute("select pg_reload_conf()")
        waits.until(lambda: superuser.execute(f"show {setting}".encode()).fetchone()[0] == "on", setting)


@pytest.mark.fault(SECTION, "wf doctor: a setting of the role", "P1, P6, P7")
@pytest.mark.parametrize(
    ("setting", "value", "severity"),
    [
        ("synchronous_commit", "off", "error"),
        ("session_replication_role", "replica", "error"),
        ("default_transaction_read_only", "on", "error"),
        ("default_transaction_isolation", "serializable", "notice"),
        ("statement_timeout", "500ms", "warning"),
        ("lock_timeout", "100ms", "warning"),
        ("idle_in_transaction_session_timeout", "500ms", "warning"),
        ("idle_session_timeout", "10s", "warning"),
        ("tcp_keepalives_idle", "10000", "notice"),
    ],
)
def test_a_setting_of_the_role_is_named_and_its_remedy_heals_it(
    examine, patient, superuser, setting, value, severity
):
    superuser.execute(f"alter role {patient.role} set {setting} = '{value}'".encode())

    found = examine()

    assert len(found.bad) == 1
    assert found.bad[0]["severity"] == severity
    assert found.code == (0 if severity == "notice" else 1)
    if setting == "tcp_keepalives_idle":
        assert "the server notices after" in found.bad[0]["found"]
        return
    assert found.bad[0]["found"].startswith(f"{setting} = ")
    assert found.bad[0]["remedy"] == f"alter role {patient.role} reset {setting}"
    heal(superuser, found.bad[0])
    assert examine().bad == []


def test_a_setting_in_the_url_is_named_as_such(examine, patient):
    found = examine(url=f"{patient.url}%20-csynchronous_commit%3Doff")

    assert "take it out of the options of the database URL" in found.one("settings")["remedy"]


# ── sessions and what holds back vacuum ────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "wf doctor: a session idle in a transaction", "P7")
def test_a_session_idle_in_a_transaction_is_named_and_ended_by_the_remedy(examine, patient, superuser):
    with connect(patient.owner_url, application_name="report\x1b[31m") as idle:
        idle.execute("begin isolation level repeatable read")
        idle.execute("select count(*) from workflow_run")

        waits.until(lambda: examine("--long", "50ms").code == 1, "it is seen")
        found = examine("--long", "50ms").one("idle transactions")

        assert found["severity"] == "warning"
        assert f"session {idle.info.backend_pid} (report" in found["found"]
        assert found["found"].endswith("it holds back vacuum")
        assert found["remedy"] == f"select pg_terminate_backend({idle.info.backend_pid})"
        heal(superuser, found)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("select 1")
    waits.until(lambda: examine("--long", "50ms").bad == [], "it is gone")


@pytest.mark.fault(SECTION, "wf doctor: a long transaction holds the snapshot of vacuum", "P7")
def test_a_long_transaction_is_named_and_ended_by_the_remedy(examine, patient, superuser):
    with _running(patient.owner_url, "select pg_sleep(60) -- \x1b[2J\nnight") as pid:
        waits.until(lambda: examine("--long", "50ms").code == 1, "it is seen")

        found = examine("--long", "50ms").one("long transactions")

        assert f"session {pid} " in found["found"]
        assert found["found"].endswith("select pg_sleep(60) -- [2J night")
        assert found["remedy"] == f"select pg_terminate_backend({pid})"
        heal(superuser, found)


@pytest.mark.fault(SECTION, "wf doctor: a forgotten prepared transaction", "P7")
def test_a_prepared_transaction_is_named_and_rolled_back_by_the_remedy(examine, owner, patient):
    gid = f"it's {patient.schema}"
    owner.execute("begin")
    owner.execute("insert into workflow_run (type) values ('a.b')")
    owner.execute(f"prepare transaction '{gid.replace(chr(39), chr(39) * 2)}'".encode())

    found = examine("--long", "0").one("prepared transactions")

    assert found["severity"] == "warning"
    heal(owner, found)
    assert examine("--long", "0").one("prepared transactions")["severity"] == "ok"


@pytest.mark.fault(SECTION, "wf doctor: a replication slot that nobody reads", "P1")
def test_an_unused_replication_slot_is_named(examine, superuser, patient):
    superuser.execute("select pg_create_physical_replication_slot(%s, true)", [patient.schema])
    try:
        found = examine().one("replication slots")

        assert f"replication slot {patient.schema} (physical) is used by nobody" in found["found"]
        assert f"select pg_drop_replication_slot('{patient.schema}')" in found["remedy"]
    finally:
        superuser.execute("select pg_drop_replication_slot(%s)", [patient.schema])


@pytest.mark.fault(SECTION, "wf doctor: an exclusive lock on workflow_run", "P7")
def test_who_makes_others_wait_is_named(examine, patient, superuser):
    holder = connect(patient.owner_url)
    holder.execute("begin")
    holder.execute("lock table workflow_run in access exclusive mode")
    with _running(patient.url, f"select count(*) from {patient.schema}.workflow_run") as waiting:
        waits.until(lambda: examine("--long", "100ms").one("locks")["severity"] == "warning", "it is seen")

        found = examine("--long", "100ms").one("locks")

        assert f"session {holder.info.backend_pid} " in found["found"]
        assert f"makes {waiting} wait for workflow_run" in found["found"]
        assert found["remedy"] == f"select pg_terminate_backend({holder.info.backend_pid})"
        heal(superuser, found)
    holder.close()
    waits.until(lambda: examine("--long", "100ms").one("locks")["severity"] == "ok", "nobody waits")


@pytest.mark.fault(SECTION, "wf doctor: all connections are used", "P7")
def test_connections_that_run_out_are_named(examine, patient, superuser):
    superuser.execute(f"alter role {patient.role} connection limit 5".encode())
    opened = [connect(patient.url) for _ in range(3)]

    found = [one for one in examine().bad if one["check"] == "connections"]

    for conn in opened:
        conn.close()
    assert [one["severity"] for one in found] == ["warning"]
    assert found[0]["found"] == f"4 of the 5 connections of role {patient.role} are used"
    heal(superuser, found[0])
    waits.until(lambda: examine().bad == [], "there is room")


@pytest.mark.fault(SECTION, "wf doctor: max_connections nearly reached", "P7")
def test_a_server_that_is_nearly_full_is_named(examine, patient, owner):
    places = int(owner.execute("show max_connections").fetchone()[0])
    opened = [connect(patient.owner_url) for _ in range(int(0.85 * places))]

    found = examine().one("connections")

    for conn in opened:
        conn.close()
    assert found["severity"] == "warning"
    assert "raise max_connections" in found["remedy"]


def test_what_a_role_cannot_see_is_said(examine, patient, superuser, owner):
    superuser.execute(f"revoke pg_read_all_stats from {patient.role}".encode())

    found = examine()

    assert found.code == 0
    assert found.one("statistics")["severity"] == "notice"
    assert "sessions of other roles do" in found.one("statistics")["found"]
    heal(superuser, found.one("statistics"))
    assert examine().bad == []


def test_a_role_that_sees_little_still_finds_an_old_snapshot(examine, patient, superuser):
    superuser.execute(f"revoke pg_read_all_stats from {patient.role}".encode())
    with connect(patient.owner_url) as idle:
        idle.execute("begin isolation level repeatable read")
        idle.execute("select 1")
        superuser.execute(
            "do $$ begin for i in 1..100001 loop perform 1; begin perform pg_current_xact_id();"
            " rollback; end; end loop; end $$"
        )

        found = examine().one("long transactions")

    assert f"session {idle.info.backend_pid} " in found["found"] if not idle.closed else True
    assert "has a snapshot" in found["found"]


# ── the schema ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SECTION, "wf doctor: an object of the schema is gone or switched off", "P5, P6")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("drop index workflow_run_lane", "index workflow_run_lane is missing"),
        (
            "alter table workflow_run disable trigger audit_insert",
            "trigger audit_insert on workflow_run is switched off",
        ),
        (
            "alter table workflow_event disable trigger all",
            "trigger a_guard_change on workflow_event is switched off",
        ),
        ("drop trigger a_guard_update on workflow_run", "trigger a_guard_update on workflow_run is missing"),
        (
            "alter table workflow_run drop constraint workflow_run_lease",
            "constraint workflow_run_lease on workflow_run is missing",
        ),
        (
            "alter table workflow_run drop constraint workflow_run_idempotency_key",
            "constraint workflow_run_idempotency_key on workflow_run is missing",
        ),
    ],
)
def test_a_broken_object_is_named_and_mended_by_the_remedy(examine, owner, superuser, fault, said):
    (superuser if "trigger all" in fault else owner).execute(fault.encode())

    found = examine()

    assert found.code == 1
    assert found.bad[0]["found"] == said
    assert {one["severity"] for one in found.bad} == {"error"}
    for one in found.bad:
        heal(owner, one)
    assert examine().bad == []


@pytest.mark.fault("Security", "wf doctor: the row guard names the owner that the tables had before", "P6")
def test_a_guard_that_knows_a_former_owner_is_named_and_mended_by_the_remedy(examine, owner):
    made = owner.execute(
        "select pg_get_triggerdef(oid) from pg_trigger"
        " where tgname = 'a_guard_update' and tgrelid = 'workflow_run'::regclass"
    ).fetchone()[0]
    was = made.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER").replace(
        f"'{owner.info.user}'::name", "'former'::name"
    )
    owner.execute(was.encode())

    (found,) = examine().bad

    assert found["severity"] == "notice"
    assert found["found"] == "trigger a_guard_update on workflow_run knows a former owner of the table"
    heal(owner, found)
    assert examine().bad == []


@pytest.mark.fault(SECTION, "wf doctor: a function of the schema is gone", "P6")
def test_a_missing_function_is_named(examine, owner):
    owner.execute("drop function verify")

    assert examine().one("objects")["found"] == "function verify is missing"


@pytest.mark.fault(SECTION, "wf doctor: an index that was not built to its end", "P7")
def test_an_invalid_index_is_named_and_rebuilt_by_the_remedy(examine, patient, owner):
    owner.execute("drop index workflow_run_aside")
    with connect(patient.owner_url) as older:
        older.execute("begin")
        older.execute("insert into workflow_run (type) values ('a.b')")
        owner.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            owner.execute(
                "create index concurrently workflow_run_aside on workflow_run (status, id)"
                " where status in ('waiting', 'failed', 'cancelled')"
            )
        owner.execute("reset statement_timeout")

    found = examine().one("objects")

    assert found["found"] == "index workflow_run_aside is invalid"
    heal(owner, found)
    assert examine().bad == []


@pytest.mark.fault(SECTION, "wf doctor: an older schema", "P5")
def test_an_older_schema_is_named_and_still_examined(examine, patient, owner):
    owner.execute(f"drop schema {patient.schema} cascade".encode())
    migrate(owner, patient.schema, to=4)

    found = examine(url=patient.owner_url)

    assert found.code == 1
    assert found.one("schema")["remedy"] == "wf migrate"
    assert f"schema '{patient.schema}' is at version 4" in found.one("schema")["found"]
    assert found.one("due runs")["severity"] == "ok"


@pytest.mark.fault(SECTION, "wf doctor: a newer schema", "P5")
def test_a_newer_schema_is_named(examine, owner):
    owner.execute("insert into workflow_migration (version, name, checksum) values (9000, 'later', 'x')")

    found = examine()

    assert found.one("schema")["remedy"] == "upgrade simpleworkflow"


def test_a_schema_that_is_missing_or_altered_is_named(examine, patient, owner):
    missing = examine(url=patient.owner_url.replace(patient.schema, "no_such_schema"))
    owner.execute("update workflow_migration set checksum = 'x' where version = 2")
    altered = examine()

    assert missing.one("schema")["remedy"] == "wf migrate"
    assert "migration 2 was applied from another text" in altered.one("schema")["found"]
    assert (missing.code, altered.code) == (1, 1)


@pytest.mark.fault(SECTION, "wf doctor: dead rows, and autovacuum off for a table", "P7")
def test_dead_rows_and_a_table_without_autovacuum_are_named(examine, owner, patient):
    owner.execute("alter table workflow_run set (autovacuum_enabled = false)")
    owner.execute(
        "select submit_many(array_fill('a.b'::text, array[11000]), array_fill('{}'::jsonb, array[11000]),"
        " null, null, array_fill(now() + interval '1 day', array[11000]), null, null)"
    )
    for _ in range(2):
        owner.execute("update workflow_run set priority = priority + 1")
    owner.execute("select pg_stat_force_next_flush()")
    waits.until(lambda: len(_bad(examine, "vacuum")) == 2, "the statistics are there")

    disabled, dead = _bad(examine, "vacuum")

    assert "autovacuum is switched off for workflow_run" in disabled["found"]
    assert "workflow_run has 22000 dead rows" in dead["found"]
    heal(owner, disabled)
    heal(owner, dead)
    waits.until(lambda: _bad(examine, "vacuum") == [], "vacuum has been there")


# ── grants ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Security", "wf doctor: a role without grants", "P6")
def test_a_role_that_may_do_nothing_is_told_the_remedy(examine, patient, owner):
    owner.execute(f"revoke all on schema {patient.schema} from {patient.role}".encode())

    found = examine().one("grants")

    assert found["severity"] == "error"
    assert "may do nothing" in found["found"]
    assert found["remedy"].startswith("wf migrate --grant-to")


@pytest.mark.fault("Security", "wf doctor: EXECUTE on a function of the worker is missing", "P7")
def test_a_worker_that_lacks_a_function_is_told_which(examine, patient, owner):
    owner.execute(f"revoke execute on function exchange, expire from {patient.role}".encode())

    (found,) = _bad(examine, "grants")

    assert found["severity"] == "error"
    assert found["found"] == f"role {patient.role} may claim, but not call exchange, expire"


def test_what_a_role_may_do_is_said(examine, patient, owner):
    owner.execute(f"revoke execute on all functions in schema {patient.schema} from {patient.role}".encode())

    found = examine().one("grants")

    assert found["found"] == f"role {patient.role} may submit, read; not claim, operate"


def test_an_owner_and_a_superuser_are_told_that_no_guard_binds_them(examine, patient):
    owner = examine(url=patient.owner_url)
    superuser = examine(
        url=f"{patient.superuser_url}{'&' if '?' in patient.superuser_url else '?'}schema={patient.schema}"
    )

    assert (owner.code, superuser.code) == (0, 0)
    assert "owns the tables" in owner.one("grants")["found"]
    assert "is a superuser" in superuser.one("grants")["found"]


# ── runs ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Shutdown, deploys, migrations", "wf doctor: due runs of a type that nobody handles", "P1")
def test_due_runs_that_nobody_claims_are_named_with_the_reason(examine, owner):
    for type_ in ("unknown.v1", "disabled.a.v1", "idle.v1"):
        run_id = submit(owner, type_)
        owner.execute("update workflow_run set run_at = now() - interval '1 hour' where id = %s", [run_id])
    submit(owner, "tomorrow.v1", delay=86_400)
    owner.execute("select register_types('{disabled.%,idle.%}')")
    owner.execute("update workflow_registry set is_enabled = false where workflow_name = 'disabled.%'")

    found = {one["found"].split(":")[0]: one for one in _bad(examine, "due runs")}

    assert set(found) == {"type unknown.v1", "type disabled.a.v1", "type idle.v1"}
    assert "due for 01:00:0" in found["type unknown.v1"]["found"]
    assert "no worker has ever handled this type" in found["type unknown.v1"]["found"]
    assert found["type disabled.a.v1"]["severity"] == "notice"
    assert "no worker for idle.% claims it" in found["type idle.v1"]["found"]
    heal(owner, found["type disabled.a.v1"])
    assert "type disabled.a.v1: the oldest" in str(_bad(examine, "due runs"))
    assert "no worker for disabled.% claims it" in str(_bad(examine, "due runs"))


@pytest.mark.fault("Death, pause, leases", "wf doctor: a lapsed lease that nobody expires", "P7")
def test_a_lapsed_lease_is_named_and_expired_by_the_remedy(examine, owner):
    lapse(owner, a_run(owner, status="leased", worker="host:1:gone"))

    waits.until(lambda: examine("--long", "500ms").code == 1, "it has lapsed for long")
    found = examine("--long", "500ms").one("leases")

    assert "1 leases of worker host:1:gone have lapsed" in found["found"]
    owner.execute(found["remedy"].removeprefix("start a worker, or: ").encode())
    assert examine("--long", "500ms").one("leases")["severity"] == "ok"


def test_counts_that_are_wrong_are_named_and_put_right_by_the_remedy(examine, owner, superuser):
    a_run(owner, status="failed", type="gone.v1")
    superuser.execute("set session_replication_role = replica")
    superuser.execute("delete from workflow_run")
    superuser.execute("insert into workflow_run (type) values ('restored.v1')")

    found = _bad(examine, "counts")

    assert [one["found"] for one in found] == [
        "0 pending runs are counted, there are 1",
        "1 failed runs are counted, there are 0",
    ]
    owner.execute(found[0]["remedy"].encode())
    assert examine().one("counts")["severity"] == "ok"


def test_that_nobody_sums_up_what_changes_counts_is_named_and_done_by_the_remedy(examine, owner):
    with owner.transaction():
        owner.execute(
            "insert into workflow_delta (runs, type, to_status)"
            " select case when number % 2 = 0 then 1 else -1 end, 'a.v1', 'pending'"
            " from generate_series(1, 50002) as number"
        )

    found = examine().one("counts")

    assert "more than 50000 changes of counts are not summed up, the last time was never" in found["found"]
    remedy = found["remedy"].removeprefix("start a worker, or: ").removesuffix(" until it returns 0")
    while owner.execute(remedy.encode()).fetchone()[0]:
        pass
    assert examine().one("counts")["severity"] == "ok"


def _bad(examine, check):
    return [one for one in examine().bad if one["check"] == check]


@contextmanager
def _running(url: str, statement: str) -> Iterator[int]:
    """Run a statement in a session of its own for as long as the block lasts; yield its pid."""
    with connect(url) as conn:
        pid = conn.info.backend_pid

        def run() -> None:
            with suppress(psycopg.Error):
                conn.execute(statement.encode())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield pid
        finally:
            if not conn.closed:
                conn.cancel_safe()
            thread.join(10)
