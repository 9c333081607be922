"""Databases that cannot be reached or used: who starts then, and who is stopped then."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from builders import Database, count
from faults.proxy import Proxy
from simpleworkflow import DatabaseUnavailable
from simpleworkflow.database import connect_async
from simpleworkflow.dburl import parse
from worker.stage import Program, eventually

NETWORK, SHUTDOWN = "Database and network", "Shutdown, deploys, migrations"
SECRET = "s3cr3t-of-nobody"
HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
GARBAGE = bytes(range(256)) * 4

# What is wrong, and how the network or the URL is made so.
WRONG: dict[str, Callable[[Proxy], str]] = {
    "nobody listens": lambda proxy: (proxy.refuse(), proxy.url)[1],
    "closed at once": lambda proxy: (proxy.speak(b""), proxy.url)[1],
    "accepted and silent": lambda proxy: (proxy.mute(), proxy.url_with(connect_timeout=2))[1],
    "silent amid the start": lambda proxy: (proxy.mute(answers=1), proxy.url_with(connect_timeout=2))[1],
    "an HTTP server": lambda proxy: (proxy.speak(HTTP), proxy.url)[1],
    "garbage": lambda proxy: (proxy.speak(GARBAGE), proxy.url)[1],
    "no such name": lambda proxy: proxy.url_with(host="no-such-host.invalid"),
    "wrong password": lambda proxy: proxy.url_with(password=SECRET),
    "no such database": lambda proxy: proxy.url_with(dbname="nowhere_at_all"),
    "no TLS offered": lambda proxy: proxy.url_with(sslmode="require"),
}
# Once the network is healed, a worker that waits finds its database.
HEALED = ("nobody listens", "closed at once", "silent amid the start", "an HTTP server", "garbage")


@pytest.fixture(params=list(WRONG))
def wrong(request: pytest.FixtureRequest, proxy: Proxy, server: Any) -> tuple[str, str]:
    """What is wrong, and the URL that meets it."""
    if request.param == "wrong password" and _takes_any_password(server.url):
        pytest.skip("the server of DATABASE_URL trusts everybody")
    if request.param == "no TLS offered" and _offers_tls(server.url):
        pytest.skip("the server of DATABASE_URL offers TLS")
    return request.param, WRONG[request.param](proxy)


def _takes_any_password(url: str) -> bool:
    try:
        psycopg.connect(url, password=SECRET).close()
    except psycopg.OperationalError:
        return False
    return True


def _offers_tls(url: str) -> bool:
    try:
        psycopg.connect(url, sslmode="require").close()
    except psycopg.OperationalError:
        return False
    return True


def secret_of(url: str) -> str:
    """Return the password that the URL holds, which nobody may print."""
    return str(conninfo_to_dict(parse(url).conninfo).get("password") or SECRET)


# ── starting ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(NETWORK, "a client's database cannot be used", "P1")
def test_a_client_is_told_in_one_line_without_a_secret(
    wrong: tuple[str, str], open_client: Any, db: Database
) -> None:
    _, url = wrong
    began = monotonic()

    with pytest.raises(DatabaseUnavailable) as caught:
        open_client(url).submit("a.run.v1")

    assert monotonic() - began < 10
    assert not caught.value.is_unknown
    assert "\n" not in str(caught.value)
    assert secret_of(url) not in f"{caught.value} {caught.value.__cause__!r}"
    assert count(db, "workflow_run") == 0


@pytest.mark.fault(NETWORK, "the database of `wf submit` cannot be used", "P1")
def test_wf_submit_ends_with_one_line_and_its_exit_code(wrong: tuple[str, str], program: Any) -> None:
    answer = program("submit", "a.run.v1", DATABASE_URL=wrong[1])

    assert (answer.code, answer.out) == (3, "")
    assert answer.err.count("\n") == 1
    assert secret_of(wrong[1]) not in answer.err


@pytest.mark.fault(NETWORK, "the database of `wf worker` cannot be used at its start", "P1")
def test_a_worker_waits_with_one_line_and_no_secret_and_can_be_stopped(
    wrong: tuple[str, str], proxy: Proxy, tmp_path: Path
) -> None:
    what, url = wrong
    with Program(url, tmp_path, GRACE="0.5") as worker:
        eventually(lambda: "the database is away" in worker.log, seconds=15)
        if what in HEALED:
            eventually(lambda: len(proxy.connected_at) > 3 or what == "nobody listens", seconds=15)
            proxy.heal()
            worker.started()

        sent_at = worker.signal(signal.SIGTERM)

        assert worker.exit_code() == 0
        assert monotonic() - sent_at < 0.5 + 5
        said = re.findall(r"\[(\d+)\]: the database is away", worker.log)
        assert len(said) == len(set(said)) <= 2  # each process says it once: the worker, and its supervisor
        assert ("the database is back" in worker.log) == (what in HEALED)
        assert secret_of(url) not in worker.log
        assert "Traceback" not in worker.log


@pytest.mark.fault(NETWORK, "a server closes each connection at once: the tries of a worker", "P1")
def test_a_worker_tries_again_with_growing_pauses(proxy: Proxy, tmp_path: Path) -> None:
    proxy.speak(b"")
    with Program(proxy.url, tmp_path):
        eventually(lambda: len(proxy.connected_at) >= 8, seconds=20)

    pauses = [
        later - sooner for sooner, later in zip(proxy.connected_at, proxy.connected_at[1:], strict=False)
    ]
    assert max(pauses[:2]) < max(pauses[3:])  # they grow
    assert len({round(pause, 3) for pause in pauses}) > 3  # and differ
    assert max(pauses) < 2.5


# ── stopping ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(SHUTDOWN, "SIGTERM in start-up, the server is silent at one of its steps", "P3")
@pytest.mark.parametrize("is_script", [False, True], ids=["supervisor", "program"])
@pytest.mark.parametrize("at", ["connect", "password", "session", "schema", "registration"])
def test_a_worker_can_be_stopped_at_every_step_of_its_start(
    at: str, is_script: bool, proxy: Proxy, tmp_path: Path
) -> None:
    if at in ("connect", "password"):
        proxy.mute(answers=0 if at == "connect" else 1)
    else:
        pattern = {"session": "default_transaction", "schema": "workflow_migration"}.get(at, "register_types")
        lost = proxy.swallow(pattern, then="silence")
    with Program(proxy.url, tmp_path, is_script=is_script, GRACE="0.5") as worker:
        if at in ("connect", "password"):
            eventually(lambda: proxy.connected_at, seconds=20)
        else:
            assert lost.wait(20)
        sent_at = worker.signal(signal.SIGTERM)

        worker.exit_code()

        assert monotonic() - sent_at < 0.5 + 5


@pytest.mark.fault(SHUTDOWN, "SIGTERM in reconnect back-off", "P3")
@pytest.mark.parametrize("is_script", [False, True], ids=["supervisor", "program"])
def test_a_worker_that_reconnects_can_be_stopped(is_script: bool, proxy: Proxy, tmp_path: Path) -> None:
    with Program(proxy.url, tmp_path, is_script=is_script, GRACE="0.5") as worker:
        worker.started()
        proxy.speak(b"")
        proxy.reset()
        connects = len(proxy.connected_at)
        eventually(lambda: len(proxy.connected_at) > connects + 8, seconds=20)
        sent_at = worker.signal(signal.SIGTERM)

        assert worker.exit_code() == 0
        assert monotonic() - sent_at < 0.5 + 5
        assert len(re.findall("the database is away", worker.log)) <= 2  # the worker's, and its heart's


@pytest.mark.fault(SHUTDOWN, "an async connect is cancelled at one of its steps", "P3")
@pytest.mark.parametrize("answers", range(4))
def test_a_connect_that_is_cancelled_ends_at_once(answers: int, proxy: Proxy) -> None:
    async def story() -> float:
        proxy.mute(answers=answers)
        connecting = asyncio.create_task(connect_async(proxy.url_with().partition("&schema")[0]))
        while not proxy.connected_at:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        began = monotonic()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        return monotonic() - began

    began = monotonic()
    assert asyncio.run(story()) < 0.5
    assert monotonic() - began < 5  # what was left behind has ended too
