"""A database that is away, silent or locked; a client that hangs; a stop amid streams."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from builders import Database, a_run
from cli.programs import environment  # noqa: F401 - a fixture
from cli.test_server import a_server
from simpleworkflow.web import create_app, sse
from web.test_stream import Listener

API = "/api/v1"
# What a request may take, and as much again for a machine that has other things to do.
SECONDS_MAX = 20


@pytest.fixture(params=["closed", "silent"])
def away(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """Ask an application whose database refuses to be connected to, or takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if request.param == "closed":
            listening.close()
        app = create_app(f"postgresql://x:y@127.0.0.1:{port}/x", is_open=True)
        with TestClient(app, base_url="http://localhost") as client:
            yield client
        app.state.store.close()


@pytest.mark.slow
def test_without_its_database_the_server_lives_and_says_so_in_time(away: TestClient) -> None:
    assert away.get("/healthz").status_code == 200
    for path in ("/readyz", f"{API}/runs", f"{API}/events", f"{API}/stats/stream"):
        began = time.monotonic()
        said = away.get(path)
        assert time.monotonic() - began < SECONDS_MAX
        assert (said.status_code, said.json()["error"]["code"]) == (503, "unavailable")
        assert "y@" not in said.text  # the password
    assert "simpleworkflow_database_up 0.0" in away.get("/metrics").text


@pytest.mark.slow
def test_behind_a_locked_table_requests_end_and_the_next_are_served(
    api: TestClient, db: Database, connection
) -> None:
    run_id = a_run(db)
    assert api.get("/readyz").status_code == 200
    locking = connection()
    locking.autocommit = False
    locking.execute("lock table workflow_run in access exclusive mode")

    began = time.monotonic()
    said = api.get(f"{API}/runs/{run_id}")
    took = time.monotonic() - began
    alive = api.get("/healthz")
    locking.rollback()

    assert (said.status_code, said.json()["error"]["code"]) == (503, "unavailable")
    assert took < SECONDS_MAX
    assert alive.status_code == 200
    assert api.get(f"{API}/runs/{run_id}").status_code == 200


def test_a_schema_that_is_missing_is_said_with_the_remedy(server: Any) -> None:
    app = create_app(server.url_of("nowhere"), is_open=True)
    with TestClient(app, base_url="http://localhost") as client:
        said = client.get(f"{API}/runs")
        ready = client.get("/readyz")
    app.state.store.close()

    assert (said.status_code, ready.status_code) == (503, 503)
    assert "wf migrate" in said.json()["error"]["message"]


def test_a_stream_goes_on_by_its_client_when_its_session_is_lost(
    environment: dict[str, str],  # noqa: F811
    database_url: str,
    db: Database,
    superuser: Database,
) -> None:
    first = a_run(db)
    listener = Listener("?cursor=0")
    with a_server(environment, database_url) as (url, _):
        listener.listen(url, until=1)
        superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'simpleworkflow' and pid <> pg_backend_pid() and usename = %s",
            [db.info.user],
        )
        second = a_run(db)
        end = time.monotonic() + SECONDS_MAX
        while len(listener.events) < 2 and time.monotonic() < end:
            listener.listen(url, until=2, seconds=5)

    assert [one["run_id"] for one in listener.events] == [first, second]


def test_a_client_that_takes_nothing_is_let_go_and_nothing_is_kept_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "SILENT_SECONDS_MAX", 0.2)
    asked = []

    async def parts() -> AsyncIterator[bytes]:
        while True:
            asked.append(1)
            yield b"x" * 1000

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()  # a full socket

    async def serve() -> None:
        streams = sse.Streams()
        async with asyncio.timeout(SECONDS_MAX):
            await sse.EventStream(parts(), streams)({}, receive, send)  # type: ignore[arg-type]

    asyncio.run(serve())

    assert len(asked) == 1


def test_with_open_streams_the_server_stops_within_seconds(
    environment: dict[str, str],  # noqa: F811
    database_url: str,
    db: Database,
) -> None:
    a_run(db)
    with a_server(environment, database_url) as (url, process):
        listeners = [Listener("?cursor=0") for _ in range(5)]
        threads = [threading.Thread(target=one.listen, args=[url]) for one in listeners]
        for thread in threads:
            thread.start()
        for one in listeners:
            assert one.started.wait(30)

        process.send_signal(signal.SIGTERM)

        assert process.wait(SECONDS_MAX) in (0, -signal.SIGTERM)
        for thread in threads:
            thread.join(SECONDS_MAX)
            assert not thread.is_alive()
