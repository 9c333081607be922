"""Several hosts in the URL: one that is dead, silent or elsewhere is passed over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from builders import Database, a_type, count, submit
from faults.proxy import Proxy
from simpleworkflow import Worker
from simpleworkflow.database import CONNECT_TIMEOUT_SECONDS
from simpleworkflow.dburl import parse
from worker.stage import WorkerThread, ended

NETWORK = "Database and network"
FIRST = ["refuses", "accepts and is silent", "drops what comes", "is silent amid the start"]


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port whose host drops what comes: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture(params=FIRST)
def url(request: pytest.FixtureRequest, proxy: Proxy, database_url: str, dead_port: int) -> str:
    """The URL of two hosts of which the first is of no use."""
    first = proxy.port
    if request.param == "refuses":
        proxy.refuse()
    elif request.param == "drops what comes":
        first = dead_port
    else:
        proxy.mute(answers=0 if request.param == "accepts and is silent" else 2)
    second = conninfo_to_dict(parse(database_url).conninfo)["port"]
    return proxy.url_with(
        host="127.0.0.1,127.0.0.1", port=f"{first},{second}", target_session_attrs="read-write"
    )


@pytest.mark.fault(NETWORK, "the first of two hosts is of no use to a client", "P1")
def test_a_client_passes_over_the_first_host(url: str, open_client: Any, db: Database) -> None:
    began = monotonic()

    assert open_client(url).submit("a.run.v1").created

    assert monotonic() - began < CONNECT_TIMEOUT_SECONDS / 2 + 1
    assert count(db, "workflow_run") == 1


@pytest.mark.fault(NETWORK, "the first of two hosts is of no use to a worker", "P1, P3")
def test_a_worker_passes_over_the_first_host_with_all_its_connections(url: str, db: Database) -> None:
    type_, attempts = a_type(), []
    worker = Worker(database_url=url, poll_seconds=0.2, lease_seconds=6)

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        attempts.append(run.attempt)
        await run.heartbeat(5)

    with WorkerThread(worker):
        assert ended(db, submit(db, type_), seconds=25) == "succeeded"
    assert attempts == [1]


@pytest.mark.fault(NETWORK, "a host falls silent under a worker; the other one of the URL serves", "P1, P2")
def test_a_worker_fails_over_from_a_host_that_falls_silent(
    proxy: Proxy, db: Database, database_url: str
) -> None:
    second = conninfo_to_dict(parse(database_url).conninfo)["port"]
    url = proxy.url_with(host="127.0.0.1,127.0.0.1", port=f"{proxy.port},{second}")
    type_, attempts = a_type(), []
    worker = Worker(database_url=url, poll_seconds=0.2, lease_seconds=3)

    @worker.handler(type_)
    async def handle(run: Any) -> None:
        attempts.append(run.attempt)

    with WorkerThread(worker):
        assert ended(db, submit(db, type_)) == "succeeded"
        proxy.black_hole()
        began = monotonic()

        run_id = submit(db, type_)

        assert ended(db, run_id, seconds=15) == "succeeded"
        assert monotonic() - began < 10
    assert proxy.sessions()
