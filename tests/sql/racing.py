"""The operations on one run, and a race of two of them in every order that their transactions can have."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

from builders import (
    Database,
    Held,
    a_held_run,
    a_run,
    ask,
    cancel,
    claim,
    count,
    events_of,
    expire,
    finish,
    heartbeat,
    lapse,
    progress,
    release,
    reopen,
    retry,
    status_of,
)
from simpleworkflow import statements
from simpleworkflow.statements import verify
from sql.interleaving import Session, Step, Transaction, orders, play

Operation = Callable[[Database, Held], object]


def plain_cancel(db: Database, held: Held) -> bool:
    found = db.execute(
        "update workflow_run set status = 'cancelled' where id = %s and status in ('pending', 'leased')",
        [held.id],
    )
    return found.rowcount == 1


def operate(call: Callable[..., bool]) -> Operation:
    """An operator's call on a run that may have been pruned: then nothing was changed."""

    def operation(db: Database, held: Held) -> bool:
        try:
            return call(db, held.id)
        except KeyError:
            return False

    return operation


def prune(db: Database, held: Held) -> bool:
    return ask(db, statements.prune_runs(0, [held.type], None, limit=10)).runs == 1


OPERATIONS: dict[str, Operation] = {
    "cancel": operate(cancel),
    "plain cancel": plain_cancel,
    "succeed": finish,
    "fail": lambda db, held: finish(db, held, status="failed", error="no"),
    "retry": retry,
    "release": release,
    "heartbeat": lambda db, held: heartbeat(db, held, is_explicit=True) == "leased",
    "progress": progress,
    "expire": lambda db, held: held.id in expire(db),
    "expire the dead": lambda db, held: held.id in expire(db, held.worker),
    "claim": lambda db, held: claim(db, worker="another", pattern=held.type) is not None,
    "reopen": operate(reopen),
    "prune": prune,
}
# The one event that a change leaves.
EVENTS = {
    "cancel": "cancelled",
    "plain cancel": "cancelled",
    "succeed": "succeeded",
    "fail": "failed",
    "retry": "retried",
    "release": "released",
    "heartbeat": "heartbeat",
    "progress": "progress",
    "expire": "expired",
    "expire the dead": "expired",
    "claim": "leased",
    "reopen": "reopened",
}


def a_lapsed_run(db: Database) -> Held:
    held = a_held_run(db)
    lapse(db, held)
    return held


def a_pending_run(db: Database) -> Held:
    run_id = a_run(db)
    row = db.execute("select type from workflow_run where id = %s", [run_id]).fetchone()
    return Held(run_id, row[0], 0, 0, "worker")


def a_failed_run(db: Database) -> Held:
    held = a_held_run(db)
    finish(db, held, status="failed", error="no")
    return held


BEGINNINGS = (a_lapsed_run, a_pending_run, a_failed_run)


def race(
    db: Database,
    sessions: Sequence[Session],
    begin: Callable[[Database], Held],
    names: tuple[Sequence[str], Sequence[str]],
    *,
    endings: tuple[str, str] = ("commit", "commit"),
    isolation: str = "read committed",
) -> None:
    """Play both transactions in every order, each time on a new run; hold what came of it against what was said."""
    rolls_back = "rollback" in endings
    for order in orders(len(names[0]) + 1, len(names[1]) + 1, overlapping=rolls_back):
        held = begin(db)
        before = collections.Counter(events_of(db, held))
        transactions = [
            Transaction([step(OPERATIONS[name], held) for name in names[0]], endings[0], isolation),
            Transaction([step(OPERATIONS[name], held) for name in names[1]], endings[1]),
        ]
        play(db, sessions, transactions, order)
        did = [
            name
            for transaction, of in zip(transactions, names, strict=True)
            if transaction.is_committed
            for name, answer in zip(of, transaction.answers, strict=True)
            if answer
        ]
        check(db, held, before, did, f"{names} {endings} {isolation} {begin.__name__} {order}")
    empty(db)


def step(operation: Operation, held: Held) -> Step:
    return lambda db: operation(db, held)


def check(db: Database, held: Held, before: Iterable[str], did: Sequence[str], story: str) -> None:
    """What was answered and committed has left its event, and nothing else has."""
    kinds = events_of(db, held)
    if "prune" in did:
        assert (count(db, "workflow_run", "id = %s", held.id), kinds) == (0, []), story
        return
    expected = collections.Counter(before) + collections.Counter(EVENTS[name] for name in did)
    assert collections.Counter(kinds) == expected, story
    if "cancelled" in kinds and "reopened" not in kinds[kinds.index("cancelled") :]:
        assert status_of(db, held.id) == "cancelled", story


def empty(db: Database) -> None:
    """Check the laws, then forget all runs: what an expiry meets shall be of one race."""
    assert ask(db, verify(60)) == []
    db.execute("select set_config('workflow.transition', 'prune', false)")
    db.execute("delete from workflow_event; delete from workflow_run; reset workflow.transition")
