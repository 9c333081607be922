"""Lists and counts: their pages hold what a plain SELECT finds, and none of them reads all."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from builders import Database, a_run, age, ask, attempt, blocks_touched, column_of, connect, submit
from conftest import a_schema
from simpleworkflow import statements
from simpleworkflow.model import ENDED, STATUSES
from simpleworkflow.sql import load_script

TYPES = ("a.b.v1", "a.b", "a_b.v1", "a.c.v2", "ab.v1", "A.b.v1", "z")
DAY = 86_400


def plant(db: Database, runs: list[dict[str, Any]]) -> None:
    """Write runs as they come, past guard and audit, which nobody but the owner of the tables can."""
    db.execute("alter table workflow_run disable trigger user")
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into workflow_run (id, type, status, priority, run_at, created_at, deleted_at, finished_at,"
            " leased_by, lease_until, is_suspect, parent_id, payload)"
            " values (coalesce(%(id)s, uuid7()), %(type)s, %(status)s, %(priority)s, %(run_at)s, %(created_at)s,"
            " %(deleted_at)s, %(finished_at)s, %(leased_by)s, %(lease_until)s, %(is_suspect)s, %(parent_id)s,"
            " %(payload)s::jsonb)",
            runs,
        )
    db.execute("alter table workflow_run enable trigger user")


def any_run(chance: random.Random, now: datetime) -> dict[str, Any]:
    """Return a run of any kind; some with ids from elsewhere, and times that say otherwise than their ids."""
    status = chance.choice(STATUSES)
    created_at = now - timedelta(seconds=chance.choice([0, 0, 0, 30, 4000, 90_000]) + chance.random())
    at = created_at + timedelta(seconds=chance.choice([0, 5]))
    ids = (None, None, None, uuid.UUID(int=chance.getrandbits(128)), uuid7_at(created_at, chance))
    return {
        "id": chance.choice(ids),
        "type": chance.choice(TYPES),
        "status": status,
        "priority": chance.choice([1, 100]),
        "run_at": at,
        "created_at": created_at,
        "deleted_at": now if status not in ("leased", "waiting") and chance.random() < 0.1 else None,
        "finished_at": at if status in ENDED else None,
        "leased_by": "w" if status == "leased" else None,
        "lease_until": now if status == "leased" else None,
        "is_suspect": status == "pending" and chance.random() < 0.2,
        "parent_id": None,
        "payload": chance.choice(
            ['{"n": 1, "of": {"id": 2}}', '{"n": 1.0, "tags": ["b", "a"]}', "{}", "[1]", "null"]
        ),
    }


def uuid7_at(time: datetime, chance: random.Random) -> uuid.UUID:
    return uuid.UUID(int=int(time.timestamp() * 1000) << 80 | 7 << 76 | chance.getrandbits(76))


def any_filter(chance: random.Random, now: datetime) -> dict[str, Any]:
    """Return the arguments of a list."""

    def or_none(value: Any) -> Any:
        return value if chance.random() < 0.5 else None

    patterns = [*TYPES, "a.%", "a_%", "%", "absent", "absent.%", "a.b%"]
    return {
        "patterns": or_none(chance.choices(patterns, k=chance.randrange(4))),
        "statuses": or_none(chance.sample(STATUSES, k=chance.randrange(4))),
        "created_from": or_none(now - timedelta(seconds=chance.choice([20, 3600, 80_000, 900_000]))),
        "created_before": or_none(now - timedelta(seconds=chance.choice([-60, 20, 3600, 80_000, 900_000]))),
        "payload": or_none(chance.choice(['{"n": 1}', '{"of": {"id": 2}}', '{"tags": ["a"]}', "{}"])),
    }


def selected(db: Database, narrowed: dict[str, Any]) -> set[str]:
    """Return what a plain SELECT finds."""
    rows = db.execute(
        "select id::text from workflow_run where deleted_at is null"
        " and (%(patterns)s::text[] is null or exists (select from unnest(%(patterns)s::text[]) as p"
        "      where type = p or right(p, 1) = '%%' and left(type, length(p) - 1) = left(p, -1)))"
        " and (%(statuses)s::text[] is null or status = any (%(statuses)s::text[]))"
        " and (%(created_from)s::timestamptz is null or created_at >= %(created_from)s::timestamptz)"
        " and (%(created_before)s::timestamptz is null or created_at < %(created_before)s::timestamptz)"
        " and (%(payload)s::jsonb is null or payload @> %(payload)s::jsonb)",
        narrowed,
    )
    return {row[0] for row in rows}


def pages(db: Database, limit: int, looks: int, **narrowed: Any) -> Iterator[statements.RunsFound]:
    """Yield page after page until there is none."""
    before = None
    while True:
        filters = dict.fromkeys(["patterns", "statuses", "created_from", "created_before"]) | narrowed
        page = ask(db, statements.list_page(**filters, before=before, limit=limit, looks=looks))
        assert len(page.runs) <= limit
        assert page.looked_at <= looks
        yield page
        before = page.next_before
        if before is None:
            return


# ── what is found ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_all_pages_together_hold_what_a_plain_select_finds(db, seed):
    chance, now = random.Random(seed), datetime.now(UTC)
    plant(db, [any_run(chance, now) for _ in range(chance.choice([1, 30, 120]))])

    for _ in range(40):
        narrowed = any_filter(chance, now)
        limit, looks = chance.choice([1, 3, 50]), chance.choice([1, 2, 7, 40, 10_000])
        found = [run for page in pages(db, limit, looks, **narrowed) for run in page.runs]

        ids = [str(run.id) for run in found]
        assert len(ids) == len(set(ids)), (narrowed, limit, looks)
        assert set(ids) == selected(db, narrowed), (narrowed, limit, looks)
        if narrowed["created_before"] is None:
            assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_list_is_what_a_plain_select_finds_newest_first(db, seed):
    chance, now = random.Random(seed), datetime.now(UTC)
    plant(db, [any_run(chance, now) for _ in range(60)])

    for _ in range(30):
        narrowed = any_filter(chance, now)
        limit = chance.choice([1, 5, 100])
        listed = db.execute(
            "select id::text from list_runs(%(patterns)s, %(statuses)s, %(created_from)s, %(created_before)s, null,"
            " %(limit)s, %(payload)s)",
            narrowed | {"limit": limit},
        ).fetchall()

        wanted = sorted(selected(db, narrowed), reverse=True)[:limit]
        assert [row[0] for row in listed] == wanted, (narrowed, limit)


def test_a_page_tells_how_many_it_looked_at_and_back_to_when(db):
    ids = sorted(submit(db, "a.b") for _ in range(30))  # before 18, those of a millisecond come in any order

    (page, *others) = pages(db, 5, 10, patterns=["absent.%"])

    assert (page.runs, page.looked_at, str(page.next_before)) == ([], 10, ids[20])
    assert page.looked_back_to == column_of(db, ids[20], "created_at")
    assert [other.next_before is None for other in others] == [False, False, True]


def test_runs_before_a_time_are_looked_for_from_there_and_others_come_last(db):
    # Given many runs newer than the time, one that is older, and an old one whose id came from elsewhere,
    old = a_run(db)
    db.execute("select pg_sleep(0.005)")
    before = db.execute("select clock_timestamp()").fetchone()[0]
    db.execute("select pg_sleep(0.005)")
    for _ in range(50):
        submit(db)
    foreign = submit(db)
    age(db, foreign, 3600)

    # when a page may look at a few only,
    first, *others = pages(db, 1, 5, created_before=before)

    # then it finds the first at once, and the pages after it the other.
    assert [str(run.id) for run in first.runs] == [old]
    assert [str(run.id) for page in others for run in page.runs] == [foreign]


def test_rare_statuses_and_waiting_types_are_found_however_many_other_runs_are_newer(db):
    wanted = {
        status: a_run(db, status=status, type=f"rare.{status}.v1")
        for status in ("pending", "leased", "waiting", "failed", "cancelled")
    }
    for _ in range(30):
        submit(db, "other.v1")

    for status, run_id in wanted.items():
        page = next(pages(db, 1, 10, statuses=[status], patterns=["rare.%"]))
        assert [str(run.id) for run in page.runs] == [run_id], status
        assert page.next_before is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("p_limit => 0", "p_limit: expected 1 or more, got 0"),
        ("p_looks => 0", "p_looks: expected 1 or more, got 0"),
    ],
)
def test_a_page_of_nothing_is_refused(db, arguments, said):
    for function in ("find_runs", "list_page"):
        assert attempt(db, f"select from {function}({arguments})") == "WF002", said


# ── what is counted ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_parts_of_a_count_add_up_to_what_prune_deletes(db, seed):
    chance, now = random.Random(seed), datetime.now(UTC)
    runs = [any_run(chance, now) for _ in range(100)]
    for run in runs:  # many ended at one moment, some are children of a run that has not
        run["finished_at"] = run["finished_at"] and now - timedelta(days=chance.choice([2, 2, 3, 4]))
        run["parent_id"] = chance.choice([None, None, *(run["id"] for run in runs if run["id"])])
    plant(db, runs)

    for looks in (1, 2, 7, 40, 1000):
        for narrowed in ((None, None), (["a.%"], None), (["absent"], None), (["%"], ["failed"])):
            counted, reached_at = 0, None
            while True:
                part = ask(
                    db, statements.count_prunable_runs(DAY, *narrowed, reached_at=reached_at, looks=looks)
                )
                counted, reached_at = counted + part.runs, part.reached_at
                if reached_at is None:
                    break
            with db.transaction(force_rollback=True):
                assert counted == ask(db, statements.prune_runs(DAY, *narrowed, limit=1000)).runs
            exact = db.execute(
                "select * from count_prunable(now() - interval '1 day', %s, %s)", narrowed
            ).fetchone()
            assert exact == (counted, None)


# ── what it costs ──────────────────────────────────────────────────────────────────────────────────

FINISHED, PENDING, FAILED = 60_000, 20_000, 6_000

READS = {
    "all": "list_page()",
    "a type that no run has": "list_page('{absent}', p_looks => 100)",
    "a prefix that no run has": "list_page('{absent.%}', p_looks => 100)",
    "pending, of a prefix that none has": "list_page('{past.%}', '{pending}')",
    "pending, of a type that few have": "list_page('{few.v1}', '{pending}')",
    "pending, more than a few": "list_page(null, '{pending}', p_looks => 100)",
    "leased": "list_page(null, '{leased}')",
    "waiting": "list_page(null, '{waiting}')",
    "cancelled, failed": "list_page(null, '{cancelled,failed}', p_limit => 20)",
    "failed, of a type that none has": "list_page('{absent}', '{failed}', p_looks => 100)",
    "failed, of the oldest": "list_page(null, '{failed}', null, (select at from long_ago), p_limit => 20)",
    "leased, pending, failed": "list_page('{past.%}', '{leased,pending,failed}', p_limit => 20)",
    "those of tomorrow": "list_page(p_created_from => now() + interval '1 day', p_looks => 100)",
    "those of long ago": "list_page(p_created_before => (select at from long_ago), p_limit => 20)",
    "a page from the middle": "list_page(p_before => (select id from long_ago), p_limit => 20)",
    "the exact list": "list_runs('{past.v1}', p_limit => 20)",
    "one run": "get_runs(array(select id from long_ago))",
    "its events": "list_events((select id from long_ago))",
    "whether it has ended": "ended_runs(array(select id from long_ago))",
    "the count": "count_prunable(now(), p_looks => 100)",
    "the count of a type that no run has": "count_prunable(now(), '{absent}', p_looks => 100)",
}


@pytest.fixture(scope="module", params=["no statistics", "statistics of the empty table", "fresh statistics"])
def seeded(server, request):
    """Tens of thousands of runs, the pending ones oldest, and an idea of them that the planner may or may not have."""
    with a_schema(server) as url, connect(url) as db:
        for table in ("workflow_run", "workflow_event"):
            db.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
            db.execute(f"alter table {table} disable trigger user".encode())
        if request.param == "statistics of the empty table":
            db.execute("analyze workflow_run, workflow_event")
        db.execute(
            "insert into workflow_run (type) select 'tomorrow.v1' from generate_series(1, %s)", [PENDING]
        )
        db.execute("insert into workflow_run (type) values ('few.v1')")
        db.execute(
            "create table long_ago as select max(id::text)::uuid as id, clock_timestamp() as at from workflow_run"
        )
        db.execute(
            # Before 18 those of a millisecond have ids in any order, and each look touched another block.
            "insert into workflow_run (id, type, status, attempt, created_at, finished_at)"
            " select id, 'past.v1', case when n <= %s then 'failed' else 'succeeded' end, 1, clock_timestamp(),"
            " clock_timestamp() from (select id, row_number() over (order by id) as n from"
            " (select uuid7() as id from generate_series(1, %s)) as made) as numbered order by id",
            [FAILED, FINISHED],
        )
        db.execute(
            "insert into workflow_event (workflow_id, event_type) select id, 'created' from workflow_run"
        )
        for table in ("workflow_run", "workflow_event"):
            db.execute(f"alter table {table} enable trigger user".encode())
        if request.param == "fresh statistics":
            db.execute("vacuum analyze workflow_run, workflow_event")
        yield db


@pytest.mark.parametrize("name", READS)
def test_nothing_that_is_read_often_reads_the_table(seeded, name):
    blocks_touched(seeded, f"select * from {READS[name]}")

    touched = blocks_touched(seeded, f"select * from {READS[name]}")

    # The table is 900 blocks and each whole index 200 or more; 100 looks and as many of their index entries are a few.
    assert touched < 500, touched


@pytest.mark.parametrize("check", ["due_runs", "leases", "vacuum"])
def test_no_check_of_the_doctor_reads_the_table(seeded, check):
    script = load_script(f"health/{check}", schema=seeded.schema, long_seconds="300")

    with seeded.transaction():
        seeded.execute(load_script("health/limits", seconds="10").encode())
        blocks_touched(seeded, script)
        touched = blocks_touched(seeded, script)

    assert touched < 500, touched
