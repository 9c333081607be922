"""Runs over REST: submit, list, show, events, cancel, reopen."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from builders import Database, a_run, a_type, submit

API = "/api/v1"


def test_a_submitted_run_is_recorded_and_told(api: TestClient, db: Database) -> None:
    said = api.post(f"{API}/runs", json={"type": "a.b.v1", "payload": {"n": 1}, "priority": 7})

    assert said.status_code == 201
    assert said.json()["created"] is True
    run = said.json()["run"]
    assert (run["type"], run["status"], run["payload"], run["priority"]) == ("a.b.v1", "pending", {"n": 1}, 7)
    assert run["created_at"].endswith("Z")
    assert db.execute("select id::text from workflow_run").fetchall() == [(run["id"],)]


def test_a_key_that_exists_answers_the_run_that_has_it(api: TestClient) -> None:
    body = {"type": "a.b.v1", "idempotency_key": "k"}
    first, second = api.post(f"{API}/runs", json=body), api.post(f"{API}/runs", json=body)

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["created"] is False
    assert second.json()["run"]["id"] == first.json()["run"]["id"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("9007199254740993", "9007199254740993"),
        ("1.10", "1.10"),
        ("-0.0000000000000000000000000001", "-0.0000000000000000000000000001"),
        ("1e400", "1" + "0" * 400),
        ('{"a": 123456789012345678901234567890.125}', '{"a": 123456789012345678901234567890.125}'),
    ],
)
def test_numbers_keep_every_digit(api: TestClient, written: str, kept: str) -> None:
    said = api.post(
        f"{API}/runs",
        content=f'{{"type": "a.b.v1", "payload": {written}}}',
        headers={"Content-Type": "application/json"},
    )
    shown = api.get(f"{API}/runs/{said.json()['run']['id']}")

    assert f'"payload":{kept}' in said.text
    assert f'"payload":{kept}' in shown.text


def test_a_list_has_no_payloads_and_goes_on_where_the_page_ended(api: TestClient, db: Database) -> None:
    type_ = a_type()
    ids = [submit(db, type_, {"n": n}) for n in range(5)]
    submit(db, "other.v1")

    first = api.get(f"{API}/runs", params={"pattern": type_, "limit": 3}).json()
    second = api.get(f"{API}/runs", params={"pattern": type_, "limit": 3, "page": first["next_page"]}).json()

    assert [run["id"] for run in first["runs"] + second["runs"]] == ids[::-1]
    assert second["next_page"] is None
    assert "payload" not in first["runs"][0]
    assert "result" not in first["runs"][0]


def test_runs_are_found_by_what_their_payload_contains(api: TestClient, db: Database) -> None:
    wanted = submit(db, "a.b.v1", {"customer": {"id": 42}, "n": 1})
    submit(db, "a.b.v1", {"customer": {"id": 43}})

    found = api.get(f"{API}/runs", params={"payload": '{"customer":{"id":42}}'})

    assert [run["id"] for run in found.json()["runs"]] == [str(wanted)]


@pytest.mark.parametrize("more", [{"worker": "w"}, {"key": "k"}])
def test_the_few_runs_of_a_key_or_worker_are_not_looked_through(
    api: TestClient, more: dict[str, str]
) -> None:
    said = api.get(f"{API}/runs", params={"payload": "{}", **more})

    assert (said.status_code, said.json()["error"]["code"]) == (400, "invalid_input")


@pytest.mark.parametrize("text", ["{", "nothing", '{"a": "\\u0000"}', "[" * 4000])
def test_a_payload_that_is_no_json_is_said_in_one_line(api: TestClient, text: str) -> None:
    said = api.get(f"{API}/runs", params={"payload": text})

    assert (said.status_code, said.json()["error"]["code"]) == (400, "invalid_input")
    assert "\n" not in said.json()["error"]["message"]


def test_a_list_takes_several_patterns_and_statuses(api: TestClient, db: Database) -> None:
    wanted = {
        a_run(db, type="a.one.v1"),
        a_run(db, type="b.one.v1", status="failed"),
    }
    a_run(db, type="b.two.v1", status="cancelled")
    a_run(db, type="c.one.v1")

    found = api.get(f"{API}/runs?pattern=a.%25&pattern=b.%25&status=pending&status=failed").json()

    assert {run["id"] for run in found["runs"]} == wanted


def test_events_come_in_their_order_page_by_page(api: TestClient, db: Database) -> None:
    run_id = a_run(db, status="failed")

    first = api.get(f"{API}/runs/{run_id}/events", params={"limit": 2}).json()
    second = api.get(f"{API}/runs/{run_id}/events", params={"limit": 2, "after": first["next_after"]}).json()

    assert [one["event_type"] for one in first["events"] + second["events"]] == [
        "created",
        "leased",
        "failed",
    ]
    assert second["next_after"] is None
    assert first["events"][0]["data"]["by"]


def test_a_cancelled_run_tells_why_and_can_be_reopened(api: TestClient, db: Database) -> None:
    run_id = a_run(db)

    cancelled = api.post(f"{API}/runs/{run_id}/cancel", json={"reason": "no longer wanted"}).json()
    again = api.post(f"{API}/runs/{run_id}/cancel").json()
    reopened = api.post(f"{API}/runs/{run_id}/reopen", json={"attempts": 2}).json()

    assert (cancelled["changed"], cancelled["run"]["status"]) == (True, "cancelled")
    assert (again["changed"], again["run"]["status"]) == (False, "cancelled")
    assert (reopened["changed"], reopened["run"]["status"]) == (True, "pending")
    assert api.get(f"{API}/runs/{run_id}/events").json()["events"][1]["data"]["reason"] == "no longer wanted"


@pytest.mark.parametrize("rest", ["", "/events", "/cancel", "/reopen"])
def test_a_run_that_does_not_exist_is_said_in_the_one_shape(api: TestClient, rest: str) -> None:
    path = f"{API}/runs/018f0000-0000-7000-8000-000000000000{rest}"
    said = api.get(path) if rest in ("", "/events") else api.post(path)

    assert said.status_code == 404
    assert said.json()["error"]["code"] == "not_found"
    assert "does not exist" in said.json()["error"]["message"]


def test_what_a_succeeded_run_cannot_become_is_a_conflict_or_no_change(api: TestClient, db: Database) -> None:
    run_id = a_run(db, status="succeeded")

    assert api.post(f"{API}/runs/{run_id}/cancel").json()["changed"] is False
    assert api.post(f"{API}/runs/{run_id}/reopen").json()["changed"] is False
