"""The table of transitions (design §4): every status by every operation, allowed or refused, one event each."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from builders import (
    Database,
    Held,
    a_held_run,
    a_run,
    a_type,
    attempt,
    cancel,
    claim,
    column_of,
    count,
    events_of,
    expire,
    finish,
    heartbeat,
    held_by,
    lapse,
    last_event,
    progress,
    release,
    reopen,
    retry,
    row_of,
    status_of,
    submit,
)

STATUSES = ("pending", "leased", "waiting", "succeeded", "failed", "cancelled")


def holder(db: Database, run_id: str) -> Held:
    """Return the claim of a run; of one that nobody holds, what its last holder would still send."""
    if status_of(db, run_id) == "leased":
        return held_by(db, run_id)
    token = column_of(db, run_id, "fencing_token")
    return Held(run_id, column_of(db, run_id, "type"), 1, token, "worker")


def do_expire(db: Database, run_id: str) -> object:
    if status_of(db, run_id) == "leased":
        lapse(db, run_id)
    return expire(db)


OPERATIONS: dict[str, Callable[[Database, str], object]] = {
    "claim": lambda db, run_id: claim(db, pattern=column_of(db, run_id, "type")),
    "succeed": lambda db, run_id: finish(db, holder(db, run_id), result={"ok": 1}),
    "fail": lambda db, run_id: finish(db, holder(db, run_id), status="failed", error="bad"),
    "retry": lambda db, run_id: retry(db, holder(db, run_id)),
    "release": lambda db, run_id: release(db, holder(db, run_id)),
    "expire": do_expire,
    "heartbeat": lambda db, run_id: heartbeat(db, holder(db, run_id)),
    "explicit heartbeat": lambda db, run_id: heartbeat(db, holder(db, run_id), is_explicit=True),
    "progress": lambda db, run_id: progress(db, holder(db, run_id)),
    "cancel": cancel,
    "reopen": reopen,
}

# from, operation: to, event.  What is not here changes nothing and leaves no event.
ALLOWED: dict[tuple[str, str], tuple[str, str | None]] = {
    ("pending", "claim"): ("leased", "leased"),
    ("leased", "succeed"): ("succeeded", "succeeded"),
    ("leased", "fail"): ("failed", "failed"),
    ("leased", "retry"): ("pending", "retried"),
    ("leased", "release"): ("pending", "released"),
    ("leased", "expire"): ("pending", "expired"),
    ("leased", "heartbeat"): ("leased", None),
    ("leased", "explicit heartbeat"): ("leased", "heartbeat"),
    ("leased", "progress"): ("leased", "progress"),
    ("pending", "cancel"): ("cancelled", "cancelled"),
    ("leased", "cancel"): ("cancelled", "cancelled"),
    ("waiting", "cancel"): ("cancelled", "cancelled"),
    ("failed", "reopen"): ("pending", "reopened"),
    ("cancelled", "reopen"): ("pending", "reopened"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", STATUSES)
def test_a_function_makes_exactly_the_transitions_of_the_table(module_db, status, operation):
    db = module_db
    run_id = a_run(db, status=status)
    before, events = row_of(db, run_id), events_of(db, run_id)

    OPERATIONS[operation](db, run_id)

    to, event = ALLOWED.get((status, operation), (status, None))
    assert status_of(db, run_id) == to
    assert events_of(db, run_id) == events + ([event] if event else [])
    if (status, operation) not in ALLOWED:
        assert row_of(db, run_id) == before


@pytest.mark.parametrize("to", STATUSES)
@pytest.mark.parametrize("status", STATUSES)
def test_a_plain_update_of_the_status_may_only_cancel(module_db, status, to):
    db = module_db
    run_id = a_run(db, status=status)
    before, events = row_of(db, run_id), events_of(db, run_id)

    error = attempt(db, f"update workflow_run set status = '{to}' where id = '{run_id}'")

    if to == "cancelled" and status in ("pending", "leased", "waiting"):
        assert error is None
        assert events_of(db, run_id) == [*events, "cancelled"]
        assert column_of(db, run_id, "(leased_by, lease_until)::text") == "(,)"
        assert column_of(db, run_id, "finished_at = updated_at")
    else:
        assert (error is None) == (to == status)
        assert row_of(db, run_id) == before
        assert events_of(db, run_id) == events


COLUMNS = {
    "id": "'00000000-0000-7000-8000-000000000001'",
    "type": "'another.type'",
    "payload": """'{"other": 1}'""",
    "priority": "7",
    "run_at": "'2031-01-01 00:00+00'",
    "idempotency_key": "'another key'",
    "attempt": "attempt + 1",
    "max_attempts": "9",
    "leased_by": "'thief'",
    "lease_until": "'2031-01-01 00:00+00'",
    "last_error": "'forged'",
    "result": "'{}'",
    "created_at": "'2001-01-01 00:00+00'",
    "updated_at": "'2001-01-01 00:00+00'",
    "deleted_at": "now()",
    "fencing_token": "99",
    "parent_id": "'00000000-0000-7000-8000-000000000001'",
    "crashes": "1",
    "is_suspect": "true",
    "keeps_events": "false",
    "traceparent": "'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'",
    "finished_at": "'2001-01-01 00:00+00'",
}


def may_be_changed(status: str, column: str) -> bool:
    if column == "deleted_at":
        return status not in ("leased", "waiting")
    return status == "pending" and column in ("priority", "run_at", "payload", "updated_at")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("status", STATUSES)
def test_a_plain_update_changes_only_the_columns_that_the_contract_names(module_db, status, column):
    db = module_db
    run_id = a_run(db, status=status)
    before, events = row_of(db, run_id), events_of(db, run_id)

    error = attempt(db, f"update workflow_run set {column} = {COLUMNS[column]} where id = '{run_id}'")

    if may_be_changed(status, column):
        assert error is None
    elif status == "cancelled" and column == "updated_at":
        assert error is None  # the unguarded cancel of a cancelled run sets it too, and changes nothing
        assert row_of(db, run_id) == before
    else:
        assert error == "WF001"
        assert row_of(db, run_id) == before
    assert events_of(db, run_id) == events


def test_the_table_of_columns_above_is_complete(module_db):
    rows = module_db.execute(
        "select attname from pg_attribute where attrelid = 'workflow_run'::regclass and attnum > 0 and not attisdropped"
    ).fetchall()

    columns = {row[0] for row in rows}

    assert columns == {*COLUMNS, "status"}


@pytest.mark.parametrize(
    "column",
    sorted(
        {*COLUMNS}
        - {
            "id",
            "type",
            "payload",
            "priority",
            "run_at",
            "idempotency_key",
            "max_attempts",
            "created_at",
            "updated_at",
            "traceparent",
        }
    ),
)
def test_a_plain_insert_cannot_forge_what_only_transitions_write(module_db, column):
    type_ = a_type()
    value = COLUMNS[column].replace("attempt + 1", "1")

    error = attempt(module_db, f"insert into workflow_run (type, {column}) values ('{type_}', {value})")

    assert error == "WF001"
    assert count(module_db, "workflow_run", f"type = '{type_}'") == 0


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "pending"])
def test_a_plain_insert_begins_pending(module_db, status):
    type_ = a_type()

    error = attempt(module_db, f"insert into workflow_run (type, status) values ('{type_}', '{status}')")

    assert error == "WF001"
    assert count(module_db, "workflow_run", f"type = '{type_}'") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "delete from workflow_run where id = '{id}'",
        "delete from workflow_event where workflow_id = '{id}'",
        "truncate workflow_run",
        "truncate workflow_event",
        "truncate workflow_run cascade",
        "update workflow_event set data = '{{}}' where workflow_id = '{id}'",
        "update workflow_event set event_type = 'succeeded' where workflow_id = '{id}'",
        "insert into workflow_event (workflow_id, event_type) values ('{id}', 'succeeded')",
        "update workflow_run set status = 'done' where id = '{id}'",
        "update workflow_run set status = null where id = '{id}'",
    ],
)
@pytest.mark.parametrize("status", STATUSES)
def test_history_is_only_added_to(module_db, status, statement):
    db = module_db
    run_id = a_run(db, status=status)
    before, events = row_of(db, run_id), events_of(db, run_id)

    error = attempt(db, statement.format(id=run_id))

    assert error == "WF001"
    assert row_of(db, run_id) == before
    assert events_of(db, run_id) == events


def test_cancelling_a_cancelled_run_without_a_guard_changes_nothing(db):
    run_id = a_run(db, status="cancelled")
    before, events = row_of(db, run_id), events_of(db, run_id)

    plain = db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
    touched = db.execute(
        "update workflow_run set status = 'cancelled', updated_at = now() where id = %s", [run_id]
    )

    assert (plain.rowcount, touched.rowcount) == (0, 0)
    assert row_of(db, run_id) == before
    assert events_of(db, run_id) == events


def test_a_cancelled_run_takes_no_edit_with_its_second_cancel(db):
    run_id = a_run(db, status="cancelled")
    before = row_of(db, run_id)

    error = attempt(db, f"update workflow_run set status = 'cancelled', payload = '1' where id = '{run_id}'")

    assert error == "WF001"
    assert row_of(db, run_id) == before


def test_an_update_that_asks_for_what_is_there_finds_its_row_and_changes_nothing(db):
    run_id = a_run(db, status="succeeded")
    before = row_of(db, run_id)

    found = db.execute("update workflow_run set priority = 100, status = 'succeeded' where id = %s", [run_id])

    assert found.rowcount == 1
    assert row_of(db, run_id) == before


def test_a_plain_edit_is_stamped_by_the_database_not_by_its_author(db):
    run_id = a_run(db)

    db.execute("update workflow_run set priority = 5, updated_at = '2001-01-01' where id = %s", [run_id])

    assert column_of(db, run_id, "updated_at > now() - interval '1 hour'")


def test_a_batch_of_plain_cancels_leaves_one_event_for_each_run(db):
    type_ = a_type()
    runs = [submit(db, type_) for _ in range(20)]
    held = [claim(db, pattern=type_) for _ in range(5)]

    db.execute("update workflow_run set status = 'cancelled' where type = %s", [type_])

    assert all(held)
    assert sorted(events_of(db, run_id)[-1] for run_id in runs) == ["cancelled"] * 20
    assert count(db, "workflow_event", "event_type = 'cancelled'") == 20


def test_a_run_fails_by_expiry_when_no_attempt_is_left(db):
    run_id = a_run(db, status="leased", max_attempts=1)

    lapse(db, run_id)
    became = expire(db)

    assert became == {run_id: "failed"}
    kind, data = last_event(db, run_id)
    assert (kind, data["to"], data["token"]) == ("expired", "failed", 1)


def test_runs_of_a_worker_known_dead_are_expired_before_their_lease_lapses(db):
    dead, alive = a_run(db, status="leased", worker="dead"), a_run(db, status="leased", worker="alive")

    became = expire(db, "dead")

    assert became == {dead: "pending"}
    assert "worker dead died" in column_of(db, dead, "last_error")
    assert status_of(db, alive) == "leased"


def test_what_a_dead_workers_session_claims_when_it_was_taken_already_is_given_back(db):
    taken = a_held_run(db, worker="dead", max_attempts=2)
    expire(db, "dead")
    assert claim(db, worker="dead", pattern=taken.type) is not None
    other = a_run(db, status="leased", worker="dead")

    became = expire(db, "dead", taken=[taken.id])

    assert became == {taken.id: "pending", other: "pending"}
    assert events_of(db, taken) == ["created", "leased", "expired", "leased", "released"]
    assert column_of(db, taken.id, "attempt") == 1
    assert events_of(db, other) == ["created", "leased", "expired"]
    assert column_of(db, other, "attempt") == 1


def test_what_was_taken_of_the_dead_and_is_held_by_a_live_worker_is_left(db):
    taken = a_held_run(db, worker="dead")
    expire(db, "dead")
    assert claim(db, worker="alive", pattern=taken.type) is not None

    became = expire(db, "dead", taken=[taken.id])

    assert became == {}
    assert column_of(db, taken.id, "leased_by") == "alive"


def test_expiry_leaves_a_lease_that_has_not_lapsed(db):
    run_id = a_run(db, status="leased")

    became = expire(db)

    assert became == {}
    assert status_of(db, run_id) == "leased"


def test_reopening_adds_a_budget_to_the_attempts_already_made(db):
    run_id = a_run(db, status="failed", max_attempts=2)

    reopen(db, run_id, attempts=4, reason="fixed the printer")

    assert column_of(db, run_id, "(attempt, max_attempts, finished_at is null)::text") == "(1,5,t)"
    kind, data = last_event(db, run_id)
    assert (kind, data["reason"], data["max_attempts"]) == ("reopened", "fixed the printer", 5)


def test_a_hidden_run_is_not_reopened(db):
    run_id = a_run(db, status="failed")
    db.execute("update workflow_run set deleted_at = now() where id = %s", [run_id])

    changed = reopen(db, run_id)

    assert changed is False
    assert status_of(db, run_id) == "failed"


def test_a_release_gives_the_attempt_back_and_the_token_keeps_growing(db):
    run_id = a_run(db, status="leased")

    release(db, held_by(db, run_id))
    again = claim(db)

    assert again is not None
    assert (again.attempt, again.fencing_token) == (1, 2)


def test_the_events_say_who(db):
    run_id = a_run(db, status="leased", worker="host:1:abc")
    finish(db, held_by(db, run_id), status="failed", error="it broke")

    rows = db.execute(
        "select event_type, data from workflow_event where workflow_id = %s order by id", [run_id]
    )
    said = dict(rows.fetchall())

    assert said["created"] == {"by": db.info.user}
    assert said["leased"] == {"worker": "host:1:abc", "attempt": 1, "token": 1}
    assert said["failed"] == {"worker": "host:1:abc", "attempt": 1, "token": 1, "error": "it broke"}


def test_an_event_says_when_it_happened_not_when_its_transaction_began(db):
    with db.transaction():
        run_id = submit(db)
        cancel(db, run_id)

    times = [
        row[0]
        for row in db.execute(
            "select created_at from workflow_event where workflow_id = %s order by id", [run_id]
        )
    ]
    assert times[0] < times[1]


def test_a_rolled_back_change_leaves_no_event(db):
    run_id = a_run(db)

    with db.transaction(force_rollback=True):
        cancel(db, run_id)

    assert status_of(db, run_id) == "pending"
    assert events_of(db, run_id) == ["created"]


def test_a_function_that_failed_leaves_no_door_open(db):
    run_id = a_run(db, status="leased")
    with db.transaction():
        with pytest.raises(psycopg.Error), db.transaction():
            # Refused by the check of the table, in the middle of the function's own write.
            db.execute(
                b"select workflow_finish.* from finish('w', %s::uuid[], '{1}', '{nonsense}') as workflow_finish",
                [[run_id]],
            )

        error = attempt(db, f"update workflow_run set status = 'succeeded' where id = '{run_id}'")

    assert error == "WF001"


# ── the setting that names a transition ────────────────────────────────────────────────────────────


@pytest.fixture
def stranger(db, superuser):
    """A role that may do everything to the tables, but does not own them; its statements run on ``superuser``."""
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    superuser.execute(f"create role {role}")
    superuser.execute(f"grant usage on schema {db.schema} to {role}")
    superuser.execute(f"grant all on all tables in schema {db.schema} to {role}")
    superuser.execute(f"set role {role}")
    yield superuser
    superuser.execute("reset role")
    superuser.execute("reset workflow.transition")
    superuser.execute(f"drop owned by {role}")
    superuser.execute(f"drop role {role}")


@pytest.mark.parametrize("setting", ["finish", "claim", "extend", "cancel", "prune", "progress", "anything"])
@pytest.mark.parametrize(
    "statement",
    [
        "update workflow_run set status = 'succeeded', finished_at = now() where id = '{id}'",
        "update workflow_run set payload = '{{}}' where id = '{id}'",
        "delete from workflow_run where id = '{id}'",
        "delete from workflow_event where workflow_id = '{id}'",
        "insert into workflow_event (workflow_id, event_type) values ('{id}', 'progress')",
        "insert into workflow_run (type, status) values ('a.b', 'failed')",
    ],
)
def test_a_role_that_is_not_the_owner_cannot_forge_a_transition(db, stranger, setting, statement):
    run_id = a_run(db)
    before, events = row_of(db, run_id), events_of(db, run_id)

    stranger.execute("select set_config('workflow.transition', %s, false)", [setting])
    error = attempt(stranger, statement.format(id=run_id))

    assert error == "WF001"
    assert row_of(db, run_id) == before
    assert events_of(db, run_id) == events


def test_a_producer_that_may_only_insert_gets_the_id_back_and_is_audited(db, stranger):
    stranger.execute("reset role")
    role = f"producer_{uuid.uuid4().hex[:8]}"
    stranger.execute(f"create role {role}")
    try:
        stranger.execute(f"grant usage on schema {db.schema} to {role}")
        stranger.execute(
            "grant insert (type, payload, idempotency_key, priority, run_at, max_attempts),"
            f" select (id, idempotency_key) on workflow_run to {role}"
        )
        stranger.execute(f"set role {role}")
        row = stranger.execute(
            "insert into workflow_run (type, payload, idempotency_key) values ('a.b', '{}', 'k')"
            " on conflict (idempotency_key) do nothing returning id::text"
        ).fetchone()
        refused = [
            attempt(stranger, "update workflow_run set status = 'cancelled'"),
            attempt(stranger, "select payload from workflow_run"),
            attempt(stranger, "select * from workflow_event"),
            attempt(
                stranger,
                "insert into workflow_event (workflow_id, event_type) select id, 'x' from workflow_run",
            ),
            attempt(stranger, "delete from workflow_run"),
        ]
    finally:
        stranger.execute("reset role")
        stranger.execute(f"drop owned by {role}")
        stranger.execute(f"drop role {role}")

    assert row is not None
    assert events_of(db, row[0]) == ["created"]
    assert set(refused) == {"42501"}


def test_a_producers_temporary_table_cannot_divert_the_audit(db, connection):
    producer = connection()
    producer.execute("create temporary table workflow_event (workflow_id uuid, event_type text, data jsonb)")
    producer.execute("create temporary table workflow_registry (workflow_name text, is_enabled boolean)")

    row = producer.execute(
        f"insert into {db.schema}.workflow_run (type) values ('a.b') returning id::text".encode()
    ).fetchone()

    assert row is not None
    assert events_of(db, row[0]) == ["created"]
    assert producer.execute("select count(*) from pg_temp.workflow_event").fetchone() == (0,)
