"""What each verb of a client promises, sync and async."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

import builders
from builders import Database, a_run, a_type, claim, column_of, count, events_of, finish, status_of
from simpleworkflow import InvalidInput, NewRun, RunNotFound, RunNotSucceeded
from simpleworkflow.client import verbs


def test_a_submitted_run_is_a_pending_row_with_the_values_given(client: Any, db: Database) -> None:
    due = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)

    handle = client.submit("billing.invoice.v1", {"n": 1}, priority=7, run_at=due, max_attempts=5)

    run = client.get(handle.id)
    assert handle.created
    assert (run.type, run.payload, run.status, run.priority) == ("billing.invoice.v1", {"n": 1}, "pending", 7)
    assert (run.run_at, run.max_attempts, run.attempt) == (due, 5, 0)
    assert events_of(db, str(handle.id)) == ["created"]


def test_a_run_without_payload_has_an_empty_object(client: Any) -> None:
    one = client.submit("empty.v1")
    others = client.submit_many(
        [NewRun(type="empty.v1"), NewRun(type="empty.v1", payload=None), ("empty.v1", None)]
    )

    assert [handle.get().payload for handle in (one, *others)] == [{}, {}, {}, {}]


@pytest.mark.parametrize("payload", [[1, "two"], "text", 0, False, {"a": 'quote " and \\ and ü', "b": None}])
def test_any_json_value_comes_back_as_it_was_submitted(client: Any, payload: Any) -> None:
    one = client.submit("any.payload.v1", payload)
    (other,) = client.submit_many([("any.payload.v1", payload)])

    assert one.get().payload == payload
    assert other.get().payload == payload


@pytest.mark.parametrize("delay", [3600, 3600.0, timedelta(hours=1)])
def test_a_delay_counts_from_now_by_the_database_s_clock(client: Any, db: Database, delay: Any) -> None:
    one = client.submit("late.run.v1", delay=delay)
    (other,) = client.submit_many([NewRun(type="late.run.v1", delay=delay)])

    seconds = "extract(epoch from run_at - created_at)::int"
    assert [column_of(db, str(handle.id), seconds) for handle in (one, other)] == [3600, 3600]


def test_the_same_key_gives_the_same_run_and_says_that_it_was_there(client: Any, db: Database) -> None:
    first = client.submit("billing.invoice.v1", {"n": 1}, idempotency_key="inv:1")

    second = client.submit("billing.invoice.v1", {"n": 2}, idempotency_key="inv:1")

    assert (first.created, second.created) == (True, False)
    assert first.id == second.id
    assert count(db, "workflow_run") == 1


def test_a_run_is_found_by_the_text_of_its_id_too(client: Any) -> None:
    handle = client.submit("a.run.v1")

    assert client.get(str(handle.id)) == client.get(handle.id)


@pytest.mark.parametrize("verb", ["get", "events", "cancel", "reopen", "wait"])
def test_a_run_that_does_not_exist_is_an_error_of_its_own(client: Any, verb: str) -> None:
    run_id = uuid4()

    with pytest.raises(RunNotFound) as caught:
        getattr(client, verb)(run_id)

    assert caught.value.run_id == run_id


@pytest.mark.parametrize("verb", ["get", "events", "cancel", "reopen", "wait"])
@pytest.mark.parametrize("run_id", ["", "17", "nonsense\nof two lines", None, 17, "\ud800"])
def test_what_is_no_uuid_is_refused_in_one_line(client: Any, verb: str, run_id: Any) -> None:
    with pytest.raises(InvalidInput, match="run id: expected a UUID") as caught:
        getattr(client, verb)(run_id)

    assert "\n" not in str(caught.value)


def test_events_tell_what_happened_in_its_order(client: Any, db: Database) -> None:
    run_id = a_run(db, status="failed", worker="w1", max_attempts=1)

    events = client.events(run_id)

    assert [event.event_type for event in events] == ["created", "leased", "failed"]
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert events[1].data["worker"] == "w1"
    assert all(event.run_id == UUID(run_id) for event in events)


# ── cancel and reopen ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["pending", "leased"])
def test_a_run_that_has_not_ended_can_be_cancelled(client: Any, db: Database, status: str) -> None:
    run_id = a_run(db, status=status)

    changed = client.cancel(run_id, reason="not wanted")

    assert changed is True
    assert status_of(db, run_id) == "cancelled"
    assert builders.last_event(db, run_id)[1]["reason"] == "not wanted"


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_cancelling_a_run_that_has_ended_changes_nothing(client: Any, db: Database, status: str) -> None:
    run_id = a_run(db, status=status)

    changed = client.cancel(run_id)

    assert changed is False
    assert status_of(db, run_id) == status


def test_a_failed_run_is_reopened_with_a_new_budget(client: Any, db: Database) -> None:
    run_id = a_run(db, status="failed", max_attempts=1)

    changed = client.reopen(run_id, attempts=4, reason="the bank is back")

    assert changed is True
    assert client.get(run_id).max_attempts == 5
    assert builders.last_event(db, run_id)[1]["reason"] == "the bank is back"


def test_reopening_a_run_that_goes_on_changes_nothing(client: Any, db: Database) -> None:
    run_id = a_run(db)

    assert client.reopen(run_id) is False


@pytest.mark.parametrize("attempts", [0, 1001, -1, 1.5, "3", None, True])
def test_a_budget_is_1_to_1000_attempts(client: Any, db: Database, attempts: Any) -> None:
    run_id = a_run(db, status="failed")

    with pytest.raises(InvalidInput, match="attempts: expected an integer from 1 to 1000"):
        client.reopen(run_id, attempts=attempts)


# ── handles ────────────────────────────────────────────────────────────────────────────────────────


def test_a_handle_knows_its_run(client: Any, db: Database) -> None:
    handle = client.submit("a.run.v1", {"n": 1})

    assert handle.get().payload == {"n": 1}
    assert handle.cancel(reason="enough") is True
    assert [event.event_type for event in handle.events()] == ["created", "cancelled"]
    assert handle.wait(timeout=5).status == "cancelled"


def test_a_handle_gives_the_result_of_a_run_that_succeeded(client: Any, db: Database) -> None:
    handle = client.submit("a.run.v1")
    held = claim(db)
    assert held is not None
    finish(db, held, result={"total": 42})

    assert handle.result(timeout=5) == {"total": 42}


def test_asking_for_the_result_of_a_failed_run_says_how_it_ended(client: Any, db: Database) -> None:
    handle = client.submit("a.run.v1")
    held = claim(db)
    assert held is not None
    finish(db, held, status="failed", error="ValueError: no such invoice")

    with pytest.raises(RunNotSucceeded, match="ended failed: ValueError: no such invoice") as caught:
        handle.result(timeout=5)

    assert caught.value.status == "failed"


# ── lists ──────────────────────────────────────────────────────────────────────────────────────────


def test_pages_hold_every_run_once_newest_first(client: Any) -> None:
    ids = [handle.id for handle in client.submit_many([("page.run.v1", n) for n in range(25)])]

    first = client.list(limit=10)
    second = client.list(limit=10, page=first.next_page)
    third = client.list(limit=10, page=str(second.next_page))

    seen = [run.id for page in (first, second, third) for run in page.runs]
    assert seen == sorted(ids, reverse=True)
    assert third.next_page is None


def test_a_full_last_page_is_known_to_be_the_last(client: Any) -> None:
    client.submit_many([("page.run.v1", n) for n in range(10)])

    assert client.list(limit=10).next_page is None


def test_a_run_added_between_two_pages_appears_on_neither(client: Any) -> None:
    client.submit_many([("page.run.v1", n) for n in range(4)])

    first = client.list(limit=2)
    new = client.submit("page.run.v1")
    second = client.list(limit=2, page=first.next_page)

    assert new.id not in [run.id for run in [*first.runs, *second.runs]]
    assert len(second.runs) == 2


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.b.v1", ["a.b.v1"]),
        ("a.%", ["a.b.v1"]),
        ("a_b.%", ["a_b.v1"]),
        (["a.b.v1", "c.%"], ["a.b.v1", "c.v1"]),
        ("%", ["a.b.v1", "a_b.v1", "c.v1"]),
        ("A.%", []),
        ([], []),
    ],
)
def test_a_list_holds_the_types_of_its_patterns(client: Any, pattern: Any, found: list[str]) -> None:
    client.submit_many([("a.b.v1", None), ("a_b.v1", None), ("c.v1", None)])

    page = client.list(pattern=pattern)

    assert sorted(run.type for run in page.runs) == found


def test_a_list_holds_the_statuses_asked_for(client: Any, db: Database) -> None:
    by_status = {status: a_run(db, status=status) for status in ("pending", "failed", "cancelled")}

    failed = client.list(status="failed")
    ended = client.list(status=["failed", "cancelled"])

    assert [str(run.id) for run in failed.runs] == [by_status["failed"]]
    assert {str(run.id) for run in ended.runs} == {by_status["failed"], by_status["cancelled"]}


def test_a_list_holds_the_times_asked_for(client: Any, db: Database) -> None:
    old, new = a_run(db), a_run(db)
    builders.age(db, old, seconds=7200)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)

    assert [str(run.id) for run in client.list(created_from=hour_ago).runs] == [new]
    assert [str(run.id) for run in client.list(created_before=hour_ago).runs] == [old]


def test_a_page_that_looked_at_too_few_runs_says_so_and_the_next_goes_on(
    client: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(verbs, "LISTED_AT_ONCE", 10)
    rare = client.submit("rare.v1")
    client.submit_many([("page.run.v1", n) for n in range(25)])

    first = client.list(pattern="rare.%")
    second = client.list(pattern="rare.%", page=first.next_page)
    third = client.list(pattern="rare.%", page=second.next_page)

    assert (first.runs, first.looked_at, second.runs) == ([], 10, [])
    assert second.looked_back_to <= first.looked_back_to <= datetime.now(UTC)
    assert [run.id for run in third.runs] == [rare.id]
    assert (third.next_page, third.looked_at, third.looked_back_to) == (None, 6, None)


def test_who_wants_to_looks_at_all_in_one_call(client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(verbs, "LISTED_AT_ONCE", 10)
    rare = [client.submit("rare.v1").id for _ in range(3)]
    client.submit_many([("page.run.v1", n) for n in range(25)])

    whole = client.list(pattern="rare.%", look_at_all=True)
    full = client.list(pattern="rare.%", look_at_all=True, limit=2)
    none = client.list(pattern="absent", look_at_all=True)

    assert [run.id for run in whole.runs] == rare[::-1]
    assert (whole.next_page, whole.looked_at) == (None, 28)
    assert [run.id for run in full.runs] == rare[:0:-1]
    assert full.next_page == full.runs[-1].id
    assert (none.runs, none.next_page, none.looked_at) == ([], None, 28)
    assert [run.id for run in client.iterate(pattern="rare.%")] == rare[::-1]


def test_iterating_goes_through_all_pages(client: Any) -> None:
    ids = {handle.id for handle in client.submit_many([("page.run.v1", n) for n in range(450)])}

    seen = [run.id for run in client.iterate(pattern="page.%")]

    assert len(seen) == 450
    assert set(seen) == ids


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "10"},
        {"limit": 10**30},
        {"status": "done"},
        {"status": ["failed", 7]},
        {"pattern": ""},
        {"pattern": "a%b"},
        {"pattern": "a.%' or true --"},
        {"pattern": "a\x00"},
        {"pattern": "\ud800%"},
        {"pattern": [None]},
        {"page": "nonsense"},
        {"created_from": datetime(2030, 1, 1)},
        {"created_before": "yesterday"},
    ],
)
def test_a_filter_that_cannot_be_used_is_refused_in_one_line(client: Any, filters: dict[str, Any]) -> None:
    (name,) = filters

    with pytest.raises(InvalidInput, match=f"^{name}: expected") as caught:
        client.list(**filters)

    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


# ── bad input ──────────────────────────────────────────────────────────────────────────────────────

BAD_RUNS: list[dict[str, Any]] = [
    {"type": ""},
    {"type": "a..b"},
    {"type": "a b"},
    {"type": "a.b\n"},
    {"type": "a." + "b" * 200},
    {"type": "x" * 10_000_000},
    {"type": "r\u0435al.v1"},  # a Cyrillic letter
    {"type": "../etc"},
    {"type": "a\x00b"},
    {"type": None},
    {"type": 7},
    {"payload": {"a": float("nan")}},
    {"payload": {"a": {1, 2}}},
    {"payload": {"a": b"bytes"}},
    {"payload": {"a": "\x00"}},
    {"payload": {"a": "\ud800"}},
    {"payload": {1: "a key that is no text"}},
    {"payload": "x" * 1_100_000},
    {"idempotency_key": ""},
    {"idempotency_key": "k" * 401},
    {"idempotency_key": "ü" * 201},
    {"idempotency_key": "k\x00"},
    {"idempotency_key": "\ud800"},
    {"idempotency_key": 7},
    {"priority": 2**31},
    {"priority": -(2**31) - 1},
    {"priority": 10**5000},
    {"priority": 1.5},
    {"priority": True},
    {"priority": None},
    {"max_attempts": 0},
    {"max_attempts": 1001},
    {"max_attempts": "3"},
    {"run_at": datetime(2030, 1, 1)},
    {"run_at": datetime.max.replace(tzinfo=UTC)},
    {"run_at": "tomorrow"},
    {"delay": -1},
    {"delay": float("nan")},
    {"delay": float("inf")},
    {"delay": 1e12},
    {"delay": timedelta(seconds=-1)},
    {"delay": "5"},
]


@pytest.mark.parametrize("bad", BAD_RUNS, ids=range(len(BAD_RUNS)))
def test_a_bad_run_is_refused_in_one_line_before_the_database_is_asked(open_client: Any, bad: Any) -> None:
    client = open_client("postgresql://nobody@127.0.0.1:1/nowhere")

    with pytest.raises(InvalidInput, match="expected") as caught:
        client.submit(**{"type": "a.run.v1", "payload": {}} | bad)

    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("priority", [-(2**31), 2**31 - 1])
def test_priorities_reach_from_end_to_end(client: Any, priority: int) -> None:
    assert client.submit("a.run.v1", priority=priority).get().priority == priority


def test_the_longest_values_that_are_allowed_are_stored(client: Any) -> None:
    key, type_ = "ü" * 200, "t" * 200

    run = client.submit(type_, idempotency_key=key, max_attempts=1000).get()

    assert (run.type, run.idempotency_key, run.max_attempts) == (type_, key, 1000)


# ── many ───────────────────────────────────────────────────────────────────────────────────────────


def test_many_runs_come_back_in_the_order_given(client: Any, db: Database) -> None:
    type_ = a_type()
    runs = (NewRun(type=type_, payload={"n": n}, priority=n % 7) for n in range(20_000))

    handles = client.submit_many(runs)

    rows = db.execute("select id, (payload ->> 'n')::int from workflow_run").fetchall()
    assert len(handles) == len(rows) == 20_000
    position = {handle.id: place for place, handle in enumerate(handles)}
    assert all(position[run_id] == n for run_id, n in rows)
    assert count(db, "workflow_event") == 20_000


def test_one_bad_run_among_many_refuses_all_and_is_named(client: Any, db: Database) -> None:
    runs = [("good.run.v1", {"n": n}) for n in range(12_000)]
    runs[11_000] = ("good.run.v1", {"n": float("nan")})

    with pytest.raises(InvalidInput, match=r"runs\[11000\]: payload\.n: expected a finite number"):
        client.submit_many(runs)

    assert count(db, "workflow_run") == 0


@pytest.mark.parametrize("bad", ["a.b.v1", ("a.b.v1",), ("a.b.v1", {}, 1), None, ("bad type", {})])
def test_what_is_no_run_is_named_by_its_position(client: Any, bad: Any) -> None:
    with pytest.raises(InvalidInput, match=r"runs\[1\]: "):
        client.submit_many([("a.b.v1", {}), bad])


def test_keys_among_many_give_the_runs_that_have_them(client: Any, db: Database) -> None:
    there = client.submit("a.run.v1", idempotency_key="k:1")

    handles = client.submit_many(
        NewRun(type="a.run.v1", idempotency_key=key) for key in ("k:0", "k:1", "k:2", "k:0")
    )

    assert [handle.created for handle in handles].count(False) == 2
    assert handles[1].id == there.id
    assert handles[0].id == handles[3].id
    assert count(db, "workflow_run") == 3


def test_a_type_called_null_and_a_key_with_quotes_survive_the_arrays(client: Any) -> None:
    key = 'a "quoted", {braced}, \\slashed NULL'

    (handle,) = client.submit_many([NewRun(type="NULL", payload="NULL", idempotency_key=key)])

    run = handle.get()
    assert (run.type, run.payload, run.idempotency_key) == ("NULL", "NULL", key)


def test_no_runs_are_no_handles(client: Any) -> None:
    assert client.submit_many([]) == []


def test_a_policy_is_set_listed_and_dropped(client: Any, db: Database) -> None:
    assert client.set_policy("a.%", keeps_events=False)
    assert client.set_policy("a.b", keeps_succeeded=False)
    assert not client.set_policy("a.%", keeps_events=False)

    wide, narrow = client.policies()

    assert (wide.pattern, wide.keeps_events, wide.keeps_succeeded) == ("a.%", False, True)
    assert (narrow.pattern, narrow.keeps_events, narrow.keeps_succeeded) == ("a.b", True, False)
    assert (wide.applies_from.tzinfo, wide.set_by) == (UTC, db.info.user)
    assert client.drop_policy("a.%")
    assert not client.drop_policy("a.%")
    assert client.policies() == [narrow]


@pytest.mark.parametrize("pattern", ["a b", "%%", "", None, 1, "a.b\n", "x" * 201])
def test_a_pattern_that_covers_no_type_has_no_policy(client: Any, pattern: Any) -> None:
    with pytest.raises(InvalidInput, match="pattern: expected"):
        client.set_policy(pattern)
    with pytest.raises(InvalidInput, match="pattern: expected"):
        client.drop_policy(pattern)


@pytest.mark.parametrize("name", ["keeps_events", "keeps_succeeded"])
@pytest.mark.parametrize("value", [None, 0, "no"])
def test_what_a_policy_keeps_is_yes_or_no(client: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: expected True or False"):
        client.set_policy("a.%", **{name: value})


@pytest.mark.parametrize("timeout", [0, 10])
def test_waiting_for_a_run_that_its_policy_deletes_names_the_likely_reason(
    client: Any, db: Database, timeout: float
) -> None:
    client.set_policy("a.%", keeps_succeeded=False)
    handle = client.submit("a.b.v1")
    held = claim(db)
    assert held is not None
    finish(db, held)

    with pytest.raises(RunNotFound, match="does not exist; if it did, it succeeded"):
        handle.wait(timeout)
    with pytest.raises(RunNotFound):
        client.get(handle.id)
