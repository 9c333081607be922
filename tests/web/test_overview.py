"""What who is on call asks over REST: stats, types, pauses, operations, health, metrics."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from builders import Database, a_held_run, a_run, count, status_of, submit
from simpleworkflow.client import Client
from waits import until

API = "/api/v1"


def test_stats_and_types_say_what_count_says(api: TestClient, db: Database) -> None:
    for status in ("succeeded", "failed", "cancelled", "leased", "pending", "pending"):
        a_run(db, status=status, type="shop.order.v1")
    submit(db, "shop.later.v1", delay=3600)

    stats = api.get(f"{API}/stats").json()
    types = {one["type"]: one for one in api.get(f"{API}/types").json()["types"]}

    counted = dict(db.execute("select status, count(*) from workflow_run group by status").fetchall())
    assert stats["runs"] == {"waiting": 0} | counted
    assert stats["due"] == 2
    assert types["shop.order.v1"]["runs"]["pending"] == 2
    assert types["shop.later.v1"]["oldest_due_seconds"] is None


def test_a_window_out_of_range_is_one_line(api: TestClient) -> None:
    said = api.get(f"{API}/stats", params={"window_seconds": 1})

    assert said.status_code == 400
    assert said.json()["error"]["message"] == "window_seconds: expected an integer >= 10"


def test_a_pause_and_a_resume_are_told(api: TestClient, db: Database) -> None:
    submit(db, "shop.order.v1")

    paused = api.post(f"{API}/types/shop.%25/pause", json={"reason": "stock-taking"})
    (told,) = api.get(f"{API}/types").json()["pauses"]
    again = api.post(f"{API}/types/shop.%25/pause", json={})
    resumed = api.post(f"{API}/types/shop.%25/resume", json={})

    assert (paused.json(), again.json(), resumed.json()) == (
        {"changed": True},
        {"changed": False},
        {"changed": True},
    )
    assert (told["pattern"], told["reason"]) == ("shop.%", "stock-taking")
    assert api.get(f"{API}/types").json()["pauses"] == []


def test_workers_are_listed_with_what_they_hold(api: TestClient, db: Database) -> None:
    db.execute("select register_worker('host:1:a', array['shop.%'], 2, 'host', 1)")
    held = a_held_run(db, worker="host:1:a", type="shop.held.v1")

    (worker,) = api.get(f"{API}/workers").json()["workers"]

    assert (worker["id"], worker["state"], worker["held"]) == ("host:1:a", "running", 1)
    assert [(one["id"], one["type"]) for one in worker["holds"]] == [(held.id, "shop.held.v1")]


def test_why_a_run_is_not_running_is_told(api: TestClient, db: Database) -> None:
    run_id = submit(db, "shop.order.v1")

    said = api.get(f"{API}/runs/{run_id}/why").json()
    unknown = api.get(f"{API}/runs/01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00/why")

    assert said["reason"] == "no_worker"
    assert said["says"] == "no worker that runs handles its type; none ever has"
    assert said["facts"]["type"] == "shop.order.v1"
    assert unknown.status_code == 404


def test_a_pattern_that_is_none_is_refused(api: TestClient) -> None:
    said = api.post(f"{API}/types/shop%20order/pause", json={})

    assert said.status_code == 400
    assert said.json()["error"]["message"].startswith("pattern: expected a type, or a prefix that ends in %")


def test_runs_are_found_by_their_key_and_by_who_holds_them(api: TestClient, db: Database) -> None:
    keyed = submit(db, "shop.order.v1", idempotency_key="order:7")
    held = a_held_run(db, worker="host:1:a", type="shop.held.v1")
    a_held_run(db, worker="host:2:b", type="shop.held.v1")

    assert _ids(api, key="order:7") == [keyed]
    assert _ids(api, key="order:8") == []
    assert _ids(api, key="order:7", status="failed") == []
    assert _ids(api, worker="host:1:a") == [held.id]
    assert _ids(api, worker="host:1:a", pattern="other.%") == []
    assert _ids(api, worker="nobody") == []
    (told,) = api.get(f"{API}/runs", params={"key": "order:7"}).json()["runs"]
    assert "payload" not in told


def test_an_operation_is_counted_first_then_carried_out_and_shown(
    api: TestClient, db: Database, database_url: str
) -> None:
    runs = [submit(db, "shop.order.v1") for _ in range(3)]
    other = submit(db, "other.v1")
    asked = {"kind": "cancel", "filter": {"pattern": ["shop.%"], "status": ["pending"]}}

    counted = api.post(f"{API}/operations", json=asked | {"dry_run": True})
    assert (counted.status_code, counted.json()) == (200, {"matched": 3, "is_exact": True})
    assert count(db, "workflow_run", "status = 'cancelled'") == 0

    started = api.post(f"{API}/operations", json=asked | {"reason": "the shop is closed"})
    assert started.status_code == 202
    operation = started.json()
    assert (operation["state"], operation["reason"]) == ("running", "the shop is closed")
    assert [one["id"] for one in api.get(f"{API}/operations").json()["operations"]] == [operation["id"]]

    stopped = api.post(f"{API}/operations/{operation['id']}/stop")
    assert stopped.json()["state"] == "stopped"
    assert [status_of(db, run_id) for run_id in [*runs, other]] == ["pending"] * 4
    assert api.get(f"{API}/operations/{operation['id']}").json()["state"] == "stopped"
    with Client(database_url) as client:
        assert client.operation(operation["id"]).state == "stopped"


def test_an_operation_without_a_reason_or_that_is_not_there_is_refused(api: TestClient) -> None:
    filtered: dict[str, Any] = {"kind": "cancel", "filter": {"pattern": ["%"]}}

    without = api.post(f"{API}/operations", json=filtered)
    missing = api.get(f"{API}/operations/01a22026-5645-797b-8b50-d10eec9e1d77")

    assert without.status_code == 400
    assert without.json()["error"]["message"].startswith("reason: expected why, got nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_health_is_what_the_doctor_finds(api: TestClient, db: Database) -> None:
    db.execute("alter table workflow_run disable trigger audit_insert")
    try:
        findings = api.get(f"{API}/health").json()["findings"]
    finally:
        db.execute("alter table workflow_run enable trigger audit_insert")

    (found,) = [one for one in findings if one["check"] == "objects"]
    assert found["severity"] == "error"
    assert found["found"] == "trigger audit_insert on workflow_run is switched off"
    assert found["remedy"].startswith("alter table ")


def test_metrics_tell_what_waits(api: TestClient, db: Database) -> None:
    submit(db, "shop.order.v1")

    said: list[str] = []

    def tells() -> bool:
        answer = api.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        said[:] = [line for line in answer.text.splitlines() if "shop.order.v1" in line and "pending" in line]
        return bool(said)

    until(tells, "the metrics tell the pending run")
    assert said[0].endswith(" 1.0")


def _ids(api: TestClient, **parameters: str) -> list[str]:
    return [run["id"] for run in api.get(f"{API}/runs", params=parameters).json()["runs"]]


def test_a_time_far_from_utc_is_understood(api: TestClient, db: Database) -> None:
    submit(db, "shop.order.v1")
    before = "2999-12-24T04:22:26-22:42"  # PostgreSQL knows no such offset
    body = {"type": "shop.order.v1", "run_at": before}
    filtered = {"kind": "cancel", "filter": {"pattern": ["%"], "created_before": before}, "dry_run": True}

    assert api.post(f"{API}/runs", json=body).json()["run"]["run_at"] == "2999-12-25T03:04:26Z"
    assert len(_ids(api, created_before=before)) == 2
    assert api.post(f"{API}/operations", json=filtered).json()["matched"] == 2
