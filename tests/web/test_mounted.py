"""The application in another one, the page for its paths, and what nobody else tests of what it lists."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from builders import Database
from simpleworkflow.web import Identity, create_app

API = "/api/v1"


def test_the_page_is_answered_for_every_path_that_it_knows(api: TestClient) -> None:
    for path in ("/", "/runs", "/runs/x", "/types", "/workers", "/schedules", "/health", "/operations"):
        said = api.get(path)
        assert said.status_code == 200
        assert said.headers["content-type"] == "text/html; charset=utf-8"
        assert said.headers["cache-control"] == "no-cache"
    assert api.get("/app.js").headers["content-type"].startswith("text/javascript")


def test_mounted_under_a_prefix_page_and_api_are_below_it(database_url: str, db: Database) -> None:
    async def identify(_: object) -> Identity:
        return Identity("user@example.com", "operator")

    inner = create_app(database_url, identify=identify)
    with TestClient(Starlette(routes=[Mount("/jobs", inner)]), base_url="http://app.example") as client:
        assert client.get("/jobs/api/v1/me").json()["name"] == "user@example.com"
        assert '<base href="/jobs/">' in client.get("/jobs/runs/x").text
        assert client.get("/jobs/app.js").status_code == 200
        assert client.post("/jobs/api/v1/runs", json={"type": "a.v1"}).status_code == 201
    inner.state.store.close()

    row = db.execute("select data->>'on_behalf_of' from workflow_event").fetchone()
    assert row == ("user@example.com",)


def test_schedules_are_listed(api: TestClient, db: Database) -> None:
    db.execute("insert into workflow_schedule (type, schedule) values ('a.b.v1', '0 9 * * *')")

    (told,) = api.get(f"{API}/schedules").json()["schedules"]

    assert (told["type"], told["schedule"]) == ("a.b.v1", "0 9 * * *")
    assert (told["timezone"], told["enabled"], told["next_run_at"]) == ("UTC", True, None)
