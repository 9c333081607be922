"""One idempotency key, two producers or a producer and a prune: in every order one run, or the one that is left."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from builders import Database, a_run, ask, count, submit_many
from simpleworkflow import statements
from simpleworkflow.model import NewRun
from simpleworkflow.statements import verify
from sql.interleaving import Session, Step, Transaction, orders, play


class Answer(NamedTuple):
    """What a producer is told: the run's id, if it is told one, and whether it is new."""

    run_id: str | None
    is_new: bool


def plain(db: Database, key: str) -> Answer:
    row = db.execute(
        "insert into workflow_run (type, idempotency_key) values ('a.b', %s)"
        " on conflict (idempotency_key) do nothing returning id::text",
        [key],
    ).fetchone()
    return Answer(row[0] if row else None, row is not None)


def by_submit(db: Database, key: str) -> Answer:
    said = ask(db, statements.submit_run(NewRun(type="a.b", idempotency_key=key)))
    return Answer(str(said.id), said.created)


def by_submit_many(db: Database, key: str) -> Answer:
    news = [NewRun(type="a.b", idempotency_key=one) for one in (key, None, key)]
    said, _, again = submit_many(db, news)
    assert (said.id, again.created) == (again.id, False)
    return Answer(str(said.id), said.created)


WAYS: dict[str, Callable[[Database, str], Answer]] = {
    "submit": by_submit,
    "submit_many": by_submit_many,
    "INSERT … ON CONFLICT": plain,
}
ENDINGS = (("commit", "commit"), ("rollback", "commit"), ("commit", "rollback"), ("rollback", "rollback"))
# A producer's own transaction may be of any isolation; ours are read committed.
ISOLATIONS = (
    ("read committed", "read committed"),
    ("read committed", "serializable"),
    ("serializable", "serializable"),
    ("repeatable read", "read committed"),
)


@pytest.mark.fault(
    "Concurrency", "two producers of one key in every order, with roll-backs and isolations", "P9"
)
@pytest.mark.parametrize("isolations", ISOLATIONS, ids=", ".join)
@pytest.mark.parametrize("ways", list(itertools.combinations_with_replacement(WAYS, 2)), ids=" against ".join)
def test_one_key_gives_one_run_in_every_order(module_db, sessions, ways, isolations):
    for number, (endings, order) in enumerate(itertools.product(ENDINGS, orders(2, 2))):
        key = f"{ways} {isolations} {number}"
        transactions = [
            Transaction([submission(way, key)], ending, isolation)
            for way, ending, isolation in zip(ways, endings, isolations, strict=True)
        ]

        play(module_db, sessions, transactions, order)

        told = [transaction.answers[0] for transaction in transactions if transaction.is_committed]
        assert_one_run(module_db, key, told, f"{endings} {order}")

    assert ask(module_db, verify(60)) == []


def submission(way: str, key: str) -> Step:
    return lambda db: WAYS[way](db, key)


def assert_one_run(db: Database, key: str, told: Sequence[Answer], story: str) -> None:
    ids = [
        row[0] for row in db.execute("select id::text from workflow_run where idempotency_key = %s", [key])
    ]
    assert [answer.is_new for answer in told].count(True) == (len(told) > 0), story
    assert len(ids) == (len(told) > 0), story
    assert {answer.run_id for answer in told} <= {*ids, None}, story


@pytest.mark.fault("Concurrency", "a producer of a key whose run is pruned, in every order", "P1, P9")
@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
@pytest.mark.parametrize("way", WAYS)
def test_a_key_is_its_old_run_or_a_new_one_while_it_is_pruned(module_db, sessions, way, isolation):
    for number, (endings, order) in enumerate(itertools.product(ENDINGS, orders(2, 2))):
        key = f"pruned {way} {isolation} {number}"
        old = a_run(module_db, status="succeeded", type="to.prune", idempotency_key=key)
        prune = Transaction(
            [lambda db: ask(db, statements.prune_runs(0, ["to.%"], None, limit=9)).runs], endings[0]
        )
        produce = Transaction([submission(way, key)], endings[1], isolation)

        play(module_db, sessions, (prune, produce), order)

        story = f"{endings} {order}"
        is_pruned = prune.is_committed and prune.answers == [1]
        told = produce.answers[0] if produce.is_committed else None
        ids = {
            row[0]
            for row in module_db.execute(
                "select id::text from workflow_run where idempotency_key = %s", [key]
            )
        }
        if told is not None and told.is_new:
            # A new run only where the old one has gone.
            assert is_pruned, story
            assert ids == {told.run_id}, story
        else:
            assert told is None or told.run_id in (old, None), story
            assert ids == (set() if is_pruned else {old}), story
        assert count(module_db, "workflow_event", "workflow_id = %s", old) == (0 if is_pruned else 3), story
        ask(module_db, statements.prune_runs(0, ["to.%"], None, limit=9))

    assert ask(module_db, verify(60)) == []


@pytest.fixture(scope="module")
def sessions(module_url):
    both = [Session(module_url), Session(module_url)]
    yield both
    for session in both:
        session.close()
