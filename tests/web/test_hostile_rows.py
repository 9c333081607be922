"""Whatever is in a row, every route answers, as JSON that any language can read."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from builders import Database, claim, finish, submit
from simpleworkflow.codec import JsonText

API = "/api/v1"
TEXTS = [
    "<script>alert(1)</script>",
    "\u001b[2J\u0007\b\r\n\t\u2028\u2029\ufeff",
    "\"'`\\ %s {0} ${x} '; drop table workflow_run; --",
    "\U0001f4a3 \u202e \u0627\u0644",
    "id: 1\n\ndata: {}\n\n",
]
PAYLOADS = [
    "1e1000",
    "-1e-1000",
    "123456789012345678901234567890.10",
    "[" * 100 + "]" * 100,
    '{"": {"__proto__": null, "a\\u0001": "\\ud83d\\udca3"}}',
]


@pytest.fixture
def rows(db: Database) -> list[str]:
    """The ids of runs that hold what nobody expects: pending, leased, failed, succeeded."""
    ids = [submit(db, "a.v1", JsonText(payload)) for payload in PAYLOADS]
    for text in TEXTS:
        ids.append(submit(db, "a.v1", {"text": text, text: 1}, idempotency_key=text[:100]))
        held = claim(db, worker=text, pattern="a.v1")
        assert held is not None
        if text != TEXTS[0]:
            finish(db, held, status="failed", error=text)
    db.execute(
        "insert into workflow_registry (workflow_name, runtime, description) values ('b.v1', %s, %s)",
        TEXTS[:2],
    )
    db.execute(
        "insert into workflow_schedule (type, schedule, timezone, next_run_at) values ('b.v1', %s, %s, 'infinity')",
        TEXTS[:2],
    )
    return ids


def test_every_route_answers_whatever_is_in_the_rows(api: TestClient, db: Database, rows: list[str]) -> None:
    api.post(f"{API}/types/a.v1/pause", json={"reason": TEXTS[1]})
    api.post(f"{API}/operations", json={"kind": "cancel", "filter": {"pattern": ["z%"]}, "reason": TEXTS[1]})
    paths = [f"/runs/{id_}{rest}" for id_ in rows for rest in ("", "/events")]
    paths += ["/runs", "/stats", "/types", "/operations", "/schedules", "/health", "/me"]

    for path in paths:
        said = api.get(API + path)
        assert said.status_code == 200, (path, said.text)
        json.loads(said.content.decode())
    for text in TEXTS:
        (run,) = api.get(f"{API}/runs", params={"key": text[:100]}).json()["runs"]
        assert run["idempotency_key"] == text[:100]
    assert len(api.get(f"{API}/runs", params={"worker": TEXTS[0]}).json()["runs"]) == 1
    for id_, payload in zip(rows, PAYLOADS, strict=False):
        kept = db.execute("select payload::text from workflow_run where id = %s", [id_]).fetchone()
        assert f'"payload":{kept[0]}' in api.get(f"{API}/runs/{id_}").text, payload


def test_a_time_that_no_language_has_breaks_no_list(api: TestClient, db: Database) -> None:
    db.execute(
        "insert into workflow_schedule (type, schedule, next_run_at) values ('b.v1', 'x', '-infinity')"
    )

    assert api.get(f"{API}/schedules").status_code == 200
