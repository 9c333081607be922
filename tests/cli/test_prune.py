"""``wf prune`` and ``Client.prune``: old ended runs go in batches, and what is said of it is true."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from builders import a_run, age, connect, count
from simpleworkflow import AsyncClient, Client, InvalidInput
from simpleworkflow.client import verbs

DAY = 86_400


@pytest.fixture
def old(database_url):
    """Five runs that ended two days ago, one that ended now, and one that is pending since long."""
    with connect(database_url) as db:
        for number in range(5):
            age(db, a_run(db, status="failed" if number == 0 else "succeeded", type=f"a.v{number}"), 2 * DAY)
        a_run(db, status="succeeded")
        age(db, a_run(db), 2 * DAY)
        yield db


def test_it_prints_how_many_runs_it_deleted(wf, old):
    dry = wf("prune", "--older-than", "1d", "--dry-run")
    first = wf("prune", "--older-than", "1d", "--type", "a.v0")
    rest = wf("prune", "--older-than", "24h", "--json")
    again = wf("prune", "--older-than", "1d")

    assert dry.out == "would prune 5 runs\n"
    assert first.out == "pruned 1 run\n"
    assert rest.document == {"runs": 4, "pruned": True}
    assert (again.code, again.out) == (0, "pruned 0 runs\n")
    assert count(old, "workflow_run") == 2


def test_options_narrow_it(wf, old):
    assert wf("prune", "--older-than", "1d", "--status", "failed", "--json", "--dry-run").document == {
        "runs": 1,
        "pruned": False,
    }
    assert wf("prune", "--older-than", "1d", "--limit", 3, "--dry-run").out == "would prune 3 runs\n"
    assert wf("prune", "--older-than", "1d", "--limit", 3).out == "pruned 3 runs\n"
    assert wf("prune", "--older-than", "3d").out == "pruned 0 runs\n"
    assert count(old, "workflow_run") == 4


def test_a_quick_count_says_that_it_is_one_and_an_exact_one_goes_to_the_end(wf, old, monkeypatch):
    monkeypatch.setattr(verbs, "COUNTED_AT_ONCE", 2)

    quick = wf("prune", "--older-than", "1d", "--dry-run")
    document = wf("prune", "--older-than", "1d", "--dry-run", "--json").document
    limited = wf("prune", "--older-than", "1d", "--dry-run", "--limit", 1)
    exact = wf("prune", "--older-than", "1d", "--dry-run", "--exact")

    assert quick.out == "would prune at least 1 run\n"
    assert quick.err == "counted among the 2 that ended first; to count all, add --exact\n"
    assert document == {"runs": 1, "pruned": False, "is_exact": False}
    assert (limited.out, limited.err) == ("would prune 1 run\n", "")
    assert (exact.out, exact.err) == ("would prune 5 runs\n", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "missing option '--older-than'"),
        (["--older-than", "soon"], "expected a duration such as 30s, 5m, 2h or 1d, got 'soon'"),
        (["--older-than", "99999999d"], "older_than: expected seconds from 0 to"),
        (["--older-than", "1d", "--status", "leased"], "'leased' is not one of"),
        (["--older-than", "1d", "--exact"], "--exact is for --dry-run"),
        (["--older-than", "1d", "--limit", "0"], "0 is not in the range"),
        (["--older-than", "1d", "--type", "a b"], "pattern: expected a type, or a prefix that ends in %"),
    ],
)
def test_what_cannot_be_is_one_line_and_deletes_nothing(wf, old, options, said):
    answer = wf("prune", *options)

    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert count(old, "workflow_run") == 7


def test_many_go_in_batches_each_in_its_own_transaction(database_url, old, monkeypatch):
    monkeypatch.setattr(verbs, "PRUNED_AT_ONCE", 2)
    old.execute("create table batches (of xid8)")
    old.execute(
        "create function note() returns trigger language plpgsql set search_path from current as 'begin"
        " insert into batches values (pg_current_xact_id()); return null; end'"
    )
    old.execute("create trigger note after delete on workflow_run for each statement execute function note()")

    with Client(database_url) as client:
        pruned = client.prune(DAY)

    assert pruned == 5
    assert count(old, "(select distinct of::text from batches) as batch") == 3


def test_a_limit_ends_between_two_batches(database_url, old, monkeypatch):
    monkeypatch.setattr(verbs, "PRUNED_AT_ONCE", 2)

    with Client(database_url) as client:
        assert client.prune(DAY, limit=3) == 3
        assert client.prune(timedelta(days=1), limit=4) == 2


def test_tasks_prune_too(database_url, old):
    async def prune() -> int:
        async with AsyncClient(database_url) as client:
            return await client.prune(timedelta(days=1), pattern=["a.%", "b.v1"], status=["succeeded"])

    assert asyncio.run(prune()) == 4


@pytest.mark.parametrize("older_than", [-1, "1d", None, True, float("nan"), timedelta(seconds=-1)])
def test_a_length_of_time_that_is_none_is_refused(database_url, older_than):
    with Client(database_url) as client, pytest.raises(InvalidInput, match="older_than: expected seconds"):
        client.prune(older_than)


def test_only_what_has_ended_may_be_named(database_url):
    with Client(database_url) as client, pytest.raises(InvalidInput, match="only runs that have ended"):
        client.prune(0, status=["failed", "leased"])
