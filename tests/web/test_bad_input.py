"""Bad input: one line that says what was expected, what came, and what to do."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from builders import Database

API = "/api/v1"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("limit=0", "limit: expected an integer >= 1"),
        ("limit=201", "limit: expected an integer <= 200"),
        ("limit=ten", "limit: expected an integer, got text"),
        ("limit=1&limit=2", "limit: expected one value, got several"),
        ("status=done", "status"),
        ("pattern=a%25b", "pattern"),
        ("pattern=%00", "pattern"),
        ("key=%00", "key: expected text without NUL"),
        ("page=x", "page: "),
        ("created_from=yesterday", "created_from: "),
        ("created_from=2026-01-01T00:00:00", "created_from: "),
        ("sort=up", "unknown parameter, expected one of: pattern, status"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused(api: TestClient, query: str, part: str) -> None:
    said = api.get(f"{API}/runs?{query}")

    _is_refused(said, 400, part)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("", "type: expected a value, got none"),
        ("[]", "body: expected an object, got an array"),
        ("{", "body: expected a JSON object, got none"),
        ('{"type": 1}', "type: expected text, got an integer"),
        ('{"type": "a.v1", "tpye": 1}', "'tpye': unknown field, expected one of: type, payload"),
        ('{"type": "a b"}', "type: "),
        ('{"type": "a.v1", "priority": "high"}', "priority: expected an integer, got text"),
        ('{"type": "a.v1", "priority": 4294967296}', "priority: "),
        ('{"type": "a.v1", "delay_seconds": -1}', "delay_seconds: "),
        ('{"type": "a.v1", "idempotency_key": "\\u0000"}', "idempotency_key: "),
        ('{"type": "a.v1", "payload": {"a": "\\u0000"}}', "the database refused a value"),
        ('{"type": "a.v1", "payload": {"a": "\\ud800"}}', ""),
        ('{"type": "a.v1", "payload": {"a": NaN}}', ""),
        (
            '{"type": "a.v1", "payload": ' + "[" * 101 + "]" * 101 + "}",
            "payload: expected at most 100 levels",
        ),
        ('{"type": "a.v1", "run_at": "2026-01-01"}', "run_at: "),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_and_nothing_recorded(
    api: TestClient, db: Database, body: str, part: str
) -> None:
    said = api.post(f"{API}/runs", content=body, headers=JSON)

    _is_refused(said, 400, part)
    assert db.execute("select count(*) from workflow_run").fetchone() == (0,)


def test_bytes_that_are_no_text_are_refused(api: TestClient) -> None:
    _is_refused(api.post(f"{API}/runs", content=b'{"type": "\xff"}', headers=JSON), 400, "body: ")
    _is_refused(
        api.post(f"{API}/runs", content=b'{"type": "a.v1", "payload": "\xff"}', headers=JSON), 400, "body: "
    )


def test_deep_nesting_is_refused(api: TestClient) -> None:
    body = '{"type": "a.v1", "payload": ' + "[" * 100_000 + "]" * 100_000 + "}"

    _is_refused(api.post(f"{API}/runs", content=body, headers=JSON), 400, "")


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_can_send_is_no_json(api: TestClient, media: str) -> None:
    said = api.post(f"{API}/runs", content='{"type": "a.v1"}', headers={"Content-Type": media})

    _is_refused(said, 415, f"content type: expected application/json, got '{media}'")


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(api: TestClient) -> None:
    read = []

    def body():
        for _ in range(100):
            read.append(1)
            yield b" " * 1_000_000

    said = api.post(f"{API}/runs", content=b" " * (4 * 1024 * 1024 + 1), headers=JSON)
    _is_refused(said, 413, "body: expected at most 4194304 bytes, got 4194305")

    said = api.post(f"{API}/runs", content=body(), headers=JSON)
    _is_refused(said, 413, "body: expected at most 4194304 bytes, got more")


def test_a_payload_of_a_megabyte_is_taken_and_one_byte_more_is_not(api: TestClient) -> None:
    longest = "x" * (1_048_576 - 2)

    assert api.post(f"{API}/runs", json={"type": "a.v1", "payload": longest}).status_code == 201
    _is_refused(
        api.post(f"{API}/runs", json={"type": "a.v1", "payload": longest + "x"}),
        400,
        "payload: expected at most",
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v2/runs", 404),
        ("GET", "/nothing.js", 404),
        ("GET", "/..%2f..%2fapp.py", 404),
        ("DELETE", "/api/v1/runs", 405),
        ("GET", "/api/v1/runs/x/cancel", 405),
        ("GET", "/api/v1/runs/x", 400),
        ("PATCH", "/healthz", 405),
    ],
)
def test_every_refusal_has_the_one_shape(api: TestClient, method: str, path: str, status: int) -> None:
    said = api.request(method, path)

    _is_refused(said, status, "")
    assert status != 405 or said.headers["Allow"]


def _is_refused(said, status: int, part: str) -> None:
    assert said.status_code == status, said.text
    error = json.loads(said.text)["error"]
    assert set(error) == {"code", "message", "hint"}
    assert part in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) <= 1000
