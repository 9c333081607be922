"""Faults planted in the functions of a schema: each takes one guard away, or bends one."""

from __future__ import annotations

from dataclasses import dataclass

from builders import Database


@dataclass(frozen=True)
class Mutant:
    """A function, a text in it, what takes its place; and, where only a race shows it, the two that race."""

    function: str
    old: str
    new: str
    race: tuple[str, str] | None = None
    begin: str = "a_lapsed_run"


TOKEN = "run.fencing_token = {}.token"
LOCK = "for update skip locked"

MUTANTS = {
    "finish without a look at the token": Mutant("finish", TOKEN.format("done"), "true"),
    "finish without a look at the holder": Mutant("finish", "run.leased_by = p_worker", "true"),
    "finish whatever worker holds it": Mutant(
        "finish", "run.leased_by = p_worker", "run.leased_by is not null"
    ),
    "a success keeps what the crashes took": Mutant("finish", "run.attempt - run.crashes", "run.attempt"),
    "a retry without an attempt left": Mutant("finish", "run.attempt >= run.max_attempts", "false"),
    "release without a look at the token": Mutant("release", TOKEN.format("held"), "true"),
    "release gives the token back": Mutant(
        "release",
        "attempt = run.attempt - 1",
        "attempt = run.attempt - 1, fencing_token = run.fencing_token - 1",
    ),
    "release keeps the attempt": Mutant("release", "attempt = run.attempt - 1", "attempt = run.attempt"),
    "heartbeat without a look at the token": Mutant("heartbeat", TOKEN.format("held"), "true"),
    "heartbeat shortens a lease": Mutant("heartbeat", "greatest(run.lease_until, ", "("),
    "progress without a look at the token": Mutant("progress", "run.fencing_token = p_token", "true"),
    "progress without a look at the lease": Mutant("progress", "run.leased_by is not null", "true"),
    "claim leaves the token": Mutant("exchange", "run.fencing_token + 1", "run.fencing_token"),
    "claim does not count": Mutant("exchange", "attempt = run.attempt + 1", "attempt = run.attempt"),
    "claim of the hidden": Mutant("lock_due_runs", "run.deleted_at is null", "true"),
    "claim of what is not due": Mutant("lock_in_lanes", "run.run_at <= p_now", "true"),
    "claim without a look at the switches": Mutant("exchange", "where not known.is_enabled", "where false"),
    "claim of a suspect with others": Mutant("lock_due_runs", "not run.is_suspect", "true"),
    "a crash costs no attempt": Mutant("expire", "crashes = ", "attempt = run.attempt - 1, crashes = "),
    "expire before the lease has lapsed": Mutant(
        "expire", "(lapsed.lease_until < v_now or v_worker = any (p_dead))", "true"
    ),
    "expire never fails a run": Mutant(
        "expire", "case when run.attempt < run.max_attempts then 'pending' else 'failed' end", "'pending'"
    ),
    "cancel of what has ended": Mutant(
        "cancel_for", "run.status in ('pending', 'leased', 'waiting')", "true"
    ),
    "a plain cancel of what has ended": Mutant(
        "guard_update", "and old.status in ('pending', 'leased', 'waiting')", "and old.status <> 'cancelled'"
    ),
    "reopen of a success": Mutant(
        "reopen", "run.status in ('failed', 'cancelled')", "run.finished_at is not null"
    ),
    "reopen of the hidden": Mutant("reopen", "and run.deleted_at is null", ""),
    "prune of the young": Mutant("prune", "run.finished_at < p_ended_before", "run.finished_at is not null"),
    "prune leaves the events": Mutant("prune", "workflow_id = any (v_ids)", "false"),
    "an audit that forgets retries": Mutant(
        "audit_update",
        "v_transition = 'finish' then",
        "v_transition = 'finish' and "
        "(select status from new_runs limit 1) = 'pending' then return null; elsif v_transition = 'finish' then",
    ),
    "a key that exists is answered as new": Mutant(
        "submit", "return query select v_id, false", "return query select v_id, true"
    ),
    # What one session cannot show.
    "claim without a lock": Mutant("lock_in_lanes", LOCK, "", ("claim", "claim"), "a_pending_run"),
    "expire by id, without looking again": Mutant("expire", LOCK, "", ("succeed", "expire")),
    "prune without a lock": Mutant(
        "prune", "for update of run skip locked", "", ("reopen", "prune"), "a_failed_run"
    ),
}


def plant(db: Database, mutant: Mutant) -> None:
    """Write the function anew in the schema of ``db``, with the mutant's text in it."""
    row = db.execute("select pg_get_functiondef(%s::regproc)", [mutant.function]).fetchone()
    assert row is not None
    source = row[0]
    assert mutant.old in source, f"{mutant.function} has no {mutant.old!r} any more"
    db.execute(source.replace(mutant.old, mutant.new).encode())
