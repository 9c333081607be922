"""Who may ask for what: keys, roles, origins, names of this host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from builders import Database, a_run, ask, rewrite, submit
from simpleworkflow.statements.serving import add_key, revoke_key
from simpleworkflow.web import Identity, create_app
from simpleworkflow.web.keys import digest_of, make_key
from waits import until

API = "/api/v1"


@pytest.fixture
def guarded(database_url: str) -> Iterator[TestClient]:
    """Ask an application that demands keys."""
    app = create_app(database_url)
    with TestClient(app, base_url="http://workflows.example") as client:
        yield client
    app.state.store.close()


def a_key(db: Database, role: str, name: str = "somebody") -> dict[str, str]:
    """Return the header with a new key of this role."""
    key = make_key()
    assert ask(db, add_key(name, role, digest_of(key)))
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "path",
    [
        *(API + path for path in ("/runs", "/stats", "/types", "/operations", "/events", "/me", "/health")),
        "/metrics",
    ],
)
def test_without_a_key_nothing_is_answered(guarded: TestClient, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wf_wrong"},
        {"Cookie": "wf_key=wf_wrong"},
        {"Authorization": "Basic x"},
    ):
        said = guarded.get(path, headers=headers)
        assert said.status_code == 401
        assert said.json()["error"]["code"] == "unauthenticated"


def test_probes_and_the_page_need_no_key(guarded: TestClient) -> None:
    assert [guarded.get(path).status_code for path in ("/healthz", "/readyz", "/openapi.json", "/")] == [
        200
    ] * 4


def test_a_reader_sees_what_happens_but_not_what_about(guarded: TestClient, db: Database) -> None:
    key = a_key(db, "reader")
    run_id = a_run(db, status="failed", payload={"secret": 1})

    run = guarded.get(f"{API}/runs/{run_id}", headers=key).json()["run"]
    events = guarded.get(f"{API}/runs/{run_id}/events", headers=key).json()["events"]
    listed = guarded.get(f"{API}/runs", headers=key).json()["runs"][0]

    assert (run["payload"], run["result"], run["last_error"]) == (None, None, None)
    assert sorted(run["hidden"]) == ["last_error", "payload", "result"]
    assert listed["last_error"] is None
    assert [one["data"] for one in events] == [{}, {}, {}]


@pytest.mark.parametrize(
    "path",
    [
        "/runs",
        "/runs/{id}/cancel",
        "/runs/{id}/reopen",
        "/types/a.v1/pause",
        "/types/a.v1/resume",
        "/operations",
    ],
)
def test_a_reader_changes_nothing(guarded: TestClient, db: Database, path: str) -> None:
    key = a_key(db, "reader")
    run_id = a_run(db)

    said = guarded.post(f"{API}{path.format(id=run_id)}", json={}, headers=key)

    assert said.status_code == 403
    assert said.json()["error"]["message"] == "this needs the role operator, and somebody has reader"
    assert db.execute("select count(*) from workflow_event").fetchone() == (1,)


def test_the_history_tells_in_whose_name_it_was_done(guarded: TestClient, db: Database) -> None:
    key = a_key(db, "operator", "alice@example.com")

    run_id = guarded.post(f"{API}/runs", json={"type": "a.v1"}, headers=key).json()["run"]["id"]
    guarded.post(f"{API}/runs/{run_id}/cancel", json={"reason": "x"}, headers=key)
    guarded.post(f"{API}/runs/{run_id}/reopen", json={}, headers=key)
    guarded.post(f"{API}/types/a.v1/pause", json={"reason": "y"}, headers=key)
    guarded.post(
        f"{API}/operations",
        json={"kind": "cancel", "filter": {"pattern": ["b.%"]}, "reason": "z"},
        headers=key,
    )

    told = db.execute(
        "select event_type, data->>'on_behalf_of', data->>'by' = session_user from workflow_event order by id"
    )
    assert told.fetchall() == [
        (one, "alice@example.com", True) for one in ("created", "cancelled", "reopened")
    ]
    assert db.execute("select paused_for from list_pauses()").fetchall() == [("alice@example.com",)]
    assert db.execute("select on_behalf_of from workflow_operation").fetchall() == [("alice@example.com",)]
    # The next who uses the connection is somebody else.
    other = a_key(db, "operator", "bob")
    until(lambda: guarded.get(f"{API}/me", headers=other).status_code == 200, "answers 200")
    guarded.post(f"{API}/runs", json={"type": "a.v1"}, headers=other)
    last = db.execute("select data->>'on_behalf_of' from workflow_event order by id desc limit 1").fetchone()
    assert last == ("bob",)


def test_who_may_not_read_payloads_may_not_look_for_one(guarded: TestClient, db: Database) -> None:
    question = f"{API}/runs?payload=%7B%22iban%22%3A%22CH1%22%7D"

    reader, operator = a_key(db, "reader", "one"), a_key(db, "operator", "other")

    assert guarded.get(question, headers=reader).status_code == 403
    assert guarded.get(question, headers=operator).status_code == 200


def test_why_tells_a_reader_neither_errors_nor_reasons(guarded: TestClient, db: Database) -> None:
    failed, cancelled = a_run(db, status="failed"), submit(db)
    db.execute("select cancel(array[%s::uuid], 'the iban CH1 is wrong')", [cancelled])
    error = "the token is hunter2"
    rewrite(db, failed, f"last_error = '{error}'")
    reader, operator = a_key(db, "reader", "one"), a_key(db, "operator", "other")

    told = {
        role: "".join(
            guarded.get(f"{API}/runs/{one}/why", headers=role_key).text for one in (failed, cancelled)
        )
        for role, role_key in (("reader", reader), ("operator", operator))
    }

    assert error in told["operator"]
    assert "CH1" in told["operator"]
    assert error not in told["reader"]
    assert "CH1" not in told["reader"]


def test_why_names_whose_key_cancelled_a_run(guarded: TestClient, db: Database) -> None:
    run_id, operator = submit(db), a_key(db, "operator", "bob")
    guarded.post(f"{API}/runs/{run_id}/cancel", json={}, headers=operator)

    told = guarded.get(f"{API}/runs/{run_id}/why", headers=operator).json()

    assert told["facts"]["cancelled_by"] == "bob"
    assert "by bob" in told["says"]


def test_a_revoked_key_is_no_key_a_moment_later(guarded: TestClient, db: Database) -> None:
    key = a_key(db, "admin")
    assert guarded.get(f"{API}/me", headers=key).json()["role"] == "admin"

    ask(db, revoke_key("somebody"))

    until(lambda: guarded.get(f"{API}/me", headers=key).status_code == 401, "answers 401")


def test_a_browser_keeps_the_key_where_no_script_can_read_it(guarded: TestClient, db: Database) -> None:
    key = a_key(db, "operator")["Authorization"].removeprefix("Bearer ")

    wrong = guarded.post(f"{API}/login", json={"key": "wf_wrong"})
    said = guarded.post(f"{API}/login", json={"key": key})

    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    cookie = said.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get(f"{API}/me").json()["name"] == "somebody"
    guarded.post(f"{API}/logout", json={})
    assert guarded.get(f"{API}/me").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_a_page_of_another_site_changes_nothing(
    database_url: str, db: Database, headers: dict[str, str], is_open: bool
) -> None:
    run_id = a_run(db)
    app = create_app(database_url, is_open=is_open)
    with TestClient(app, base_url="http://localhost") as client:
        if not is_open:
            key = a_key(db, "operator")["Authorization"].removeprefix("Bearer ")
            client.cookies.set("wf_key", key)
        refused = client.post(f"{API}/runs/{run_id}/cancel", headers=headers)
        taken = client.post(
            f"{API}/runs/{run_id}/cancel",
            headers={"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
        )
    app.state.store.close()

    assert refused.status_code == 403
    assert taken.json()["changed"] is True


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", ""])
def test_a_name_that_was_made_to_lead_here_is_not_ours(api: TestClient, host: str) -> None:
    for path in ("/", f"{API}/runs", "/healthz"):
        said = api.get(path, headers={"Host": host})
        assert said.status_code == 403
        assert said.json()["error"]["code"] == "not_permitted"


def test_where_there_are_keys_this_machine_needs_one_too(api: TestClient, db: Database) -> None:
    assert api.get(f"{API}/me").json()["role"] == "admin"

    key = a_key(db, "reader")

    until(lambda: api.get(f"{API}/me").status_code == 401, "answers 401")
    assert api.get(f"{API}/me", headers=key).json()["role"] == "reader"
    ask(db, revoke_key("somebody"))
    until(lambda: api.get(f"{API}/me", headers=key).status_code == 401, "answers 401")


@pytest.mark.parametrize("path", ["/", "/runs/x", f"{API}/runs", f"{API}/nothing", "/healthz", "/app.js"])
def test_every_answer_has_the_security_headers(api: TestClient, path: str) -> None:
    said = api.get(path)

    assert said.headers["content-security-policy"].startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in said.headers["content-security-policy"]
    assert said.headers["x-content-type-options"] == "nosniff"
    assert said.headers["referrer-policy"] == "no-referrer"


def test_who_is_known_by_http_basic_is_asked_where_the_request_is_from(
    database_url: str, db: Database
) -> None:
    async def identify(_: Request) -> Identity:
        return Identity("ada", "operator")

    run_id = a_run(db)
    app = create_app(database_url, identify=identify)
    with TestClient(app, base_url="http://workflows.example") as client:
        from_elsewhere = {"Origin": "http://evil.example", "Authorization": "Basic YWRhOnNlY3JldA=="}
        refused = client.post(f"{API}/runs/{run_id}/cancel", headers=from_elsewhere)
        from_a_program = {"Authorization": "Basic YWRhOnNlY3JldA=="}
        taken = client.post(f"{API}/runs/{run_id}/cancel", headers=from_a_program)
    app.state.store.close()

    assert refused.status_code == 403
    assert taken.json()["changed"] is True


def test_a_key_is_kept_for_https_alone_where_the_page_came_so(guarded: TestClient, db: Database) -> None:
    key = a_key(db, "operator")["Authorization"].removeprefix("Bearer ")

    for origin, is_secure in (("https://workflows.example", True), ("http://workflows.example", False)):
        said = guarded.post(f"{API}/login", json={"key": key}, headers={"Origin": origin})
        assert ("; secure" in said.headers["set-cookie"].lower()) is is_secure


def test_a_login_of_a_stranger_is_read_no_further_than_a_key_goes(guarded: TestClient) -> None:
    said = guarded.post(f"{API}/login", json={"key": "x" * 9000})

    assert (said.status_code, said.json()["error"]["code"]) == (413, "too_large")
