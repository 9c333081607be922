"""Why a run does not run: the one reason, and that its remedy makes it run."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from builders import (
    Database,
    a_held_run,
    a_run,
    a_type,
    age,
    ask,
    blocks_touched,
    cancel,
    claim,
    claim_many,
    expire,
    finish,
    lapse,
    reopen,
    retry,
    rewrite,
    status_of,
    submit,
    submit_many,
)
from simpleworkflow import NewRun, statements
from simpleworkflow.summaries import Why


def why(db: Database, run_id: object) -> Why:
    """Return why a run does not run."""
    found: Why | None = ask(db, statements.why(uuid.UUID(str(run_id))))
    assert found is not None
    return found


def a_worker(db: Database, *patterns: str, concurrency: int = 2, beat_seconds: float = 10) -> str:
    """Enter a worker; return its id."""
    worker = f"host:1:{uuid.uuid4().hex[:8]}"
    db.execute(
        "select register_worker(%s, %s, %s, 'host', 1, p_beat_seconds => %s)",
        [worker, list(patterns), concurrency, beat_seconds],
    )
    return worker


def unseen(db: Database, worker: str, seconds: float) -> None:
    """Let a worker have been seen last so long ago."""
    db.execute(
        "update workflow_worker set seen_at = clock_timestamp() - make_interval(secs => %s) where id = %s",
        [seconds, worker],
    )


def follow(db: Database, remedy: str) -> None:
    """Do what a remedy says, if it is SQL."""
    statement = re.search(r"\b(update \S*workflow_r.*|select pg_.*|rollback prepared .*)$", remedy)
    assert statement is not None, remedy
    db.execute(statement[1].encode())


def claims(db: Database, run_id: str, worker: str, pattern: str = "%") -> bool:
    """Return whether a claim of the worker takes the run."""
    return run_id in [one.id for one in claim_many(db, worker=worker, patterns=[pattern])]


# ── runs that run, or have ended ───────────────────────────────────────────────────────────────────


def test_a_leased_run_runs_and_it_says_where_and_since_when(module_db: Database) -> None:
    held = a_held_run(module_db, worker="host:1:abc")

    found = why(module_db, held.id)

    assert found.reason == "running"
    assert found.says.startswith("worker host:1:abc has had it for ")
    assert "attempt 1 of 3; its lease holds for 29 s more" in found.says
    assert (found.facts["worker"], found.facts["attempt"], found.facts["fencing_token"]) == (
        held.worker,
        1,
        1,
    )


def test_a_lapsed_lease_is_said_and_whoever_expires_it_makes_the_run_run(module_db: Database) -> None:
    held = a_held_run(module_db, worker="host:1:gone")
    lapse(module_db, held)

    found = why(module_db, held.id)
    expire(module_db)

    assert found.reason == "lapsed"
    assert re.fullmatch(
        r"the lease of worker host:1:gone lapsed 1\.\d s ago, and nobody has expired it yet", found.says
    )
    assert status_of(module_db, held.id) == "pending"


def test_a_lapsed_lease_needs_somebody_alive(db: Database) -> None:
    held = a_held_run(db, type="a.type.v1")
    lapse(db, held)

    alone = why(db, held.id).remedy
    a_worker(db, "another.type.v1")
    beside_another = why(db, held.id).remedy

    assert alone.startswith("start a worker")
    assert beside_another.startswith("wait")


def test_a_run_whose_worker_is_lost_runs_again_when_its_lease_ends(module_db: Database) -> None:
    type_ = a_type()
    worker = a_worker(module_db, type_)
    held = a_held_run(module_db, type=type_, worker=worker)
    unseen(module_db, worker, 40)

    found = why(module_db, held.id)

    assert found.reason == "running"
    assert "that worker was last seen 40 s ago" in found.says
    assert found.facts["worker_state"] == "lost"


def test_a_run_that_succeeded_has_ended(module_db: Database) -> None:
    found = why(module_db, a_run(module_db, status="succeeded"))

    assert found.reason == "ended"
    assert re.fullmatch(r"it succeeded \d+ ms ago, with attempt 1 of 3", found.says)


def test_a_cancelled_run_tells_who_and_why_and_reopening_makes_it_run(module_db: Database) -> None:
    type_ = a_type()
    run_id = submit(module_db, type_)
    cancel(module_db, run_id, reason="ordered twice")

    found = why(module_db, run_id)
    assert reopen(module_db, run_id)

    assert found.reason == "ended"
    assert re.fullmatch(r"it was cancelled \d+ ms ago by \S+: ordered twice", found.says)
    assert found.remedy == f"wf run reopen {run_id}"
    assert claims(module_db, run_id, "worker", type_)


def test_a_run_whose_attempts_are_used_up_tells_its_error_and_reopening_makes_it_run(
    module_db: Database,
) -> None:
    type_ = a_type()
    held = a_held_run(module_db, type=type_, max_attempts=1)
    retry(module_db, held, error="gateway away\n  traceback")

    found = why(module_db, held.id)
    assert reopen(module_db, held.id)

    assert found.reason == "attempts_used_up"
    assert re.fullmatch(r"it failed \d+ ms ago, with attempt 1 of 1: gateway away", found.says)
    assert found.remedy == f"wf run reopen {held.id}"
    assert claims(module_db, held.id, "worker", type_)


def test_a_run_that_failed_with_attempts_left_has_ended(module_db: Database) -> None:
    held = a_held_run(module_db)
    finish(module_db, held, status="failed", error="no such phone")

    found = why(module_db, held.id)

    assert (found.reason, found.facts["attempt"], found.facts["max_attempts"]) == ("ended", 1, 3)
    assert found.says.endswith("with attempt 1 of 3: no such phone")


def test_a_hidden_run_that_failed_is_shown_before_it_is_reopened(module_db: Database) -> None:
    type_ = a_type()
    held = a_held_run(module_db, type=type_)
    finish(module_db, held, status="failed")
    module_db.execute("update workflow_run set deleted_at = now() where id = %s", [held.id])

    remedy = why(module_db, held.id).remedy
    follow(module_db, remedy.partition("; then wf run reopen")[0])

    assert remedy.endswith(f"wf run reopen {held.id}")
    assert reopen(module_db, held.id)


def test_a_waiting_run_waits(module_db: Database) -> None:
    assert why(module_db, a_run(module_db, status="waiting")).reason == "waiting"


# ── pending runs that are held back ────────────────────────────────────────────────────────────────


def test_a_hidden_run_is_not_claimed_until_it_is_shown(module_db: Database) -> None:
    type_ = a_type()
    worker, run_id = a_worker(module_db, type_), submit(module_db, type_)
    module_db.execute("update workflow_run set deleted_at = now() where id = %s", [run_id])

    found = why(module_db, run_id)
    assert not claims(module_db, run_id, worker, type_)
    follow(module_db, found.remedy)

    assert found.reason == "hidden"
    assert claims(module_db, run_id, worker, type_)


def test_a_run_that_is_due_later_tells_when_and_runs_when_that_is_changed(module_db: Database) -> None:
    type_ = a_type()
    worker, run_id = a_worker(module_db, type_), submit(module_db, type_, delay=250)

    found = why(module_db, run_id)
    assert not claims(module_db, run_id, worker, type_)
    follow(module_db, found.remedy)

    assert found.reason == "due_later"
    assert re.fullmatch(r"it is due in 4 min [89] s, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found.says)
    assert found.facts["then"] is None
    assert claims(module_db, run_id, worker, type_)


def test_a_run_that_waits_for_its_next_attempt_tells_what_the_last_ended_with(module_db: Database) -> None:
    held = a_held_run(module_db)
    a_worker(module_db, held.type)
    retry(module_db, held, delay_seconds=100, error="gateway away")

    found = why(module_db, held.id)

    assert found.reason == "due_later"
    assert found.says.endswith("for attempt 2 of 3; the last ended with: gateway away")


def test_a_run_due_later_tells_what_will_hold_it_back_then(module_db: Database) -> None:
    run_id = submit(module_db, a_type(), delay=100)

    found = why(module_db, run_id)

    assert (found.reason, found.facts["then"]) == ("due_later", "no_worker")
    assert found.says.endswith("; but then: no worker that runs handles its type; none ever has")


@pytest.mark.parametrize("kind", ["type", "prefix", "both"])
def test_a_paused_type_is_not_claimed_until_it_is_switched_on(db: Database, kind: str) -> None:
    patterns = {"type": ["a.b.v1"], "prefix": ["a.%"], "both": ["a.b.v1", "a.%"]}[kind]
    worker, run_id = a_worker(db, "%"), submit(db, "a.b.v1")
    for pattern in [*patterns, "b.%"]:
        db.execute("select pause(%s, 'the gateway is away')", [pattern])

    found = why(db, run_id)
    assert not claims(db, run_id, worker)
    resumed = re.findall(r"wf type resume '([^']+)'", found.remedy)
    for pattern in resumed:
        db.execute("select resume(%s)", [pattern])

    assert found.reason == "paused"
    assert found.says.startswith(f"{patterns[0]} has been paused for ")
    assert found.says.count(": the gateway is away") == len(patterns)
    assert resumed == patterns
    paused_by = db.execute("select session_user::text").fetchone()
    assert [(one["pattern"], one["reason"], (one["paused_by"],)) for one in found.facts["pauses"]] == [
        (pattern, "the gateway is away", paused_by) for pattern in patterns
    ]
    assert claims(db, run_id, worker)


def test_a_type_that_nobody_has_ever_handled_is_said(module_db: Database) -> None:
    type_ = a_type()
    run_id = submit(module_db, type_)

    found = why(module_db, run_id)
    a_worker(module_db, type_)

    assert found.reason == "no_worker"
    assert found.says == "no worker that runs handles its type; none ever has"
    assert type_ in found.remedy
    assert why(module_db, run_id).reason == "next"


@pytest.mark.parametrize("state", ["stopped", "stopping", "lost", "unseen"])
def test_a_type_whose_last_worker_is_gone_tells_which_and_when(module_db: Database, state: str) -> None:
    type_ = a_type()
    run_id = submit(module_db, type_)
    worker = a_worker(module_db, type_)
    if state == "unseen":
        unseen(module_db, worker, 31)
    else:
        module_db.execute("select end_workers(array[%s], %s)", [worker, state])

    found = why(module_db, run_id)

    assert found.reason == "no_worker"
    assert worker in found.says
    assert {
        "stopped": ", stopped ",
        "stopping": "has been stopping for",
        "lost": "was lost",
        "unseen": "was lost; it was last seen 31 s ago",
    }[state] in found.says
    assert found.facts["last_state"] == ("lost" if state == "unseen" else state)


def test_a_type_of_which_only_the_registry_knows_is_said(module_db: Database) -> None:
    type_ = a_type()
    run_id = submit(module_db, type_)
    ask(module_db, statements.register_types([type_]))

    found = why(module_db, run_id)

    assert found.reason == "no_worker"
    assert f"a python worker for {type_} was first started" in found.says


def test_a_worker_that_has_not_entered_itself_but_holds_runs_of_the_type_counts(db: Database) -> None:
    a_held_run(db, type="a.type.v1", worker="an old one")
    run_id = submit(db, "a.type.v1")

    found = why(db, run_id)

    assert found.reason == "next"
    assert "an old one" in found.says


# ── locked ─────────────────────────────────────────────────────────────────────────────────────────


def wait_until_old(db: Database, pid: int) -> None:
    """Wait until the transaction of a session is more than a second old."""
    db.execute(
        "select pg_sleep(greatest(0, 1.1 - extract(epoch from clock_timestamp() - xact_start)))"
        " from pg_stat_activity where pid = %s",
        [pid],
    )


@pytest.mark.parametrize("lock", ["update", "share", "key share"])
def test_a_run_that_somebody_s_open_transaction_has_is_passed_over_until_that_ends(
    db: Database, connection: Callable[[], Database], lock: str
) -> None:
    worker, run_id = a_worker(db, "%"), submit(db, "a.type.v1")
    holder = connection()
    pid = holder.info.backend_pid
    holder.execute("begin")
    holder.execute(f"select from workflow_run where id = %s for {lock}".encode(), [run_id])
    wait_until_old(db, pid)

    found = why(db, run_id)
    assert not claims(db, run_id, worker)
    follow(db, found.remedy)
    holder.close()

    assert found.reason == "locked"
    assert found.facts["pid"] == pid
    assert f"session {pid} of role" in found.says
    assert "idle in transaction for 1.1 s" in found.says or "idle in transaction for 1." in found.says
    _claimed_soon(db, run_id, worker)


def test_several_that_share_the_lock_are_found(db: Database, connection: Callable[[], Database]) -> None:
    run_id = submit(db, "a.type.v1")
    a_worker(db, "%")
    holders = [connection(), connection()]
    for holder in holders:
        holder.execute("begin")
        holder.execute("select from workflow_run where id = %s for share", [run_id])
    wait_until_old(db, holders[1].info.backend_pid)

    found = why(db, run_id)

    assert found.reason == "locked"
    assert found.facts["pid"] in [holder.info.backend_pid for holder in holders]


def test_a_change_that_is_not_committed_is_found(db: Database, connection: Callable[[], Database]) -> None:
    run_id = submit(db, "a.type.v1")
    a_worker(db, "%")
    holder = connection()
    holder.execute("begin")
    holder.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
    wait_until_old(db, holder.info.backend_pid)

    assert why(db, run_id).reason == "locked"
    holder.execute("rollback")
    assert why(db, run_id).reason == "next"


def test_a_claim_that_is_on_its_way_is_no_lock(db: Database, connection: Callable[[], Database]) -> None:
    run_id = submit(db, "a.type.v1")
    worker = a_worker(db, "%")
    claiming = connection()
    claiming.execute("begin")
    assert claims(claiming, run_id, worker)

    assert why(db, run_id).reason == "next"


def _claimed_soon(db: Database, run_id: str, worker: str) -> None:
    from waits import until

    until(lambda: claims(db, run_id, worker), f"a claim of {run_id}")


# ── in line ────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_for_which_a_place_is_free_is_next(module_db: Database) -> None:
    type_ = a_type()
    run_id, worker = submit(module_db, type_), a_worker(module_db, type_, concurrency=3)

    found = why(module_db, run_id)

    assert found.reason == "next"
    assert "1 worker with 3 free places is about to take it" in found.says
    assert found.remedy == "nothing to do"
    assert claims(module_db, run_id, worker, type_)


def test_a_run_that_nobody_takes_although_there_is_a_place_points_to_the_log(module_db: Database) -> None:
    type_ = a_type()
    run_id, worker = submit(module_db, type_), a_worker(module_db, type_)
    age(module_db, run_id, 60)

    found = why(module_db, run_id)

    assert found.reason == "next"
    assert "it has been due for 1 min 0 s" in found.says
    assert worker in found.remedy


def test_where_all_places_are_taken_the_run_has_its_place_in_line(module_db: Database) -> None:
    type_ = a_type()
    worker = a_worker(module_db, type_, concurrency=2)
    held = [a_held_run(module_db, type=type_, worker=worker) for _ in range(2)]
    before = [submit(module_db, type_) for _ in range(3)]
    run_id = submit(module_db, type_)
    submit(module_db, type_)

    found = why(module_db, run_id)
    finish(module_db, held[0])
    one_free = why(module_db, before[0])

    assert found.reason == "workers_busy"
    assert found.says == "2 places for its type at 1 worker, all taken; 3 due runs come before it"
    assert (found.facts["before"], found.facts["places"], found.facts["places_taken"]) == (3, 2, 2)
    assert one_free.reason == "next"
    assert claim(module_db, worker=worker, pattern=type_).id == before[0]  # type: ignore[union-attr]


def test_runs_of_a_better_priority_come_before_it_whatever_their_type(db: Database) -> None:
    worker = a_worker(db, "a.%", "b.v1", concurrency=1)
    a_held_run(db, type="a.x.v1", worker=worker)
    first = [submit(db, type_, priority=5) for type_ in ("a.x.v1", "a.y.v1", "b.v1")]
    submit(db, "c.v1", priority=5)  # no pattern covers it
    submit(db, "a.y.v1", priority=5, delay=500)  # not due
    submit(db, "a.y.v1", priority=100)  # takes turns with it
    run_id = submit(db, "a.x.v1", priority=100)

    found = why(db, run_id)

    assert (found.reason, found.facts["before_of_better_priority"]) == ("workers_busy", 3)
    assert found.says.endswith("3 due runs come before it, 3 of them of a better priority")
    taken = [one.id for one in claim_many(db, worker=worker, patterns=["a.%", "b.v1"], limit=3)]
    assert sorted(taken) == sorted(first)


def test_paused_types_do_not_come_before_it(db: Database) -> None:
    worker = a_worker(db, "%", concurrency=1)
    a_held_run(db, type="a.v1", worker=worker)
    submit(db, "b.v1", priority=1)
    db.execute("select pause('b.%', null)")

    assert why(db, submit(db, "a.v1")).facts["before"] == 0


def test_a_long_line_is_counted_to_ten_thousand(module_db: Database) -> None:
    type_ = a_type()
    a_worker(module_db, type_)
    submit_many(module_db, [NewRun(type=type_) for _ in range(10_001)])

    found = why(module_db, submit(module_db, type_))

    assert found.reason == "workers_busy"
    assert "more than 10,000 due runs come before it" in found.says
    assert (found.facts["before"], found.facts["before_is_exact"]) == (10_000, False)


def test_a_better_priority_that_is_not_due_is_not_walked_over(db: Database) -> None:
    a_worker(db, "%")
    run_id = submit(db, "a.v1")
    few = blocks_touched(db, "select * from why(%s)", run_id)
    submit_many(db, [NewRun(type="a.v1", priority=1, delay=1000) for _ in range(5000)])
    db.execute("analyze workflow_run")

    many = blocks_touched(db, "select * from why(%s)", run_id)

    assert many < few + 100


def test_a_suspect_waits_for_a_worker_that_holds_nothing(module_db: Database) -> None:
    type_ = a_type()
    busy = a_worker(module_db, type_)
    a_held_run(module_db, type=type_, worker=busy)
    run_id = submit(module_db, type_)
    rewrite(module_db, run_id, "is_suspect = true, crashes = 2")

    waits = why(module_db, run_id)
    idle = a_worker(module_db, type_)
    can = why(module_db, run_id)

    assert (waits.reason, waits.facts["workers_idle"]) == ("suspect", 0)
    assert "1 worker for its type, 0 of them without any run now" in waits.says
    assert (can.reason, can.facts["workers_idle"]) == ("suspect", 1)
    assert claims(module_db, run_id, idle, type_)


# ── whatever it is asked ───────────────────────────────────────────────────────────────────────────


def test_of_a_run_that_does_not_exist_there_is_nothing_to_say(module_db: Database) -> None:
    assert ask(module_db, statements.why(uuid.uuid4())) is None


@pytest.mark.parametrize("status", ["pending", "leased", "waiting", "succeeded", "failed", "cancelled"])
def test_there_is_always_one_answer_in_one_line_with_a_remedy(module_db: Database, status: str) -> None:
    run_id = a_run(module_db, status=status)

    rows: list[Any] = module_db.execute("select reason, says, remedy from why(%s)", [run_id]).fetchall()

    assert len(rows) == 1
    assert all(text and "\n" not in text for text in rows[0])
    assert "<NULL>" not in str(rows)
