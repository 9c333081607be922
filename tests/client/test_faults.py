"""What a client does when the database is away, wrong, or gone in the middle of a statement."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from builders import Database, a_run, count, status_of
from client.sessions import kill_sessions, sessions
from faults.proxy import Proxy
from simpleworkflow import Client, DatabaseUnavailable, NewRun, SchemaMismatch
from simpleworkflow.client import runners
from simpleworkflow.client.retrying import Retrying
from simpleworkflow.dburl import parse

# ── a database that cannot be used ─────────────────────────────────────────────────────────────────


def test_a_server_that_is_not_there_is_told_soon_in_one_line_without_the_password(open_client: Any) -> None:
    client = open_client(f"postgresql://someone:s3cret@127.0.0.1:{a_free_port()}/nowhere")

    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="the database cannot be reached") as caught:
        client.submit("a.run.v1")

    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("verb", ["get", "wait", "cancel"])
def test_every_verb_tells_that_the_server_is_not_there(open_client: Any, verb: str) -> None:
    client = open_client(f"postgresql://someone@127.0.0.1:{a_free_port()}/nowhere")

    with pytest.raises(DatabaseUnavailable):
        getattr(client, verb)("00000000-0000-7000-8000-000000000000")


def test_a_name_that_does_not_resolve_is_told_in_one_line(open_client: Any) -> None:
    client = open_client("postgresql://someone@no-such-host.invalid/nowhere")

    with pytest.raises(DatabaseUnavailable) as caught:
        client.list()

    assert "\n" not in str(caught.value)


def test_a_database_without_the_tables_is_told_with_the_remedy(open_client: Any, database_url: str) -> None:
    elsewhere = parse(database_url).with_schema("nothing_here")
    client = open_client(f"{elsewhere.conninfo}", schema="nothing_here")

    with pytest.raises(SchemaMismatch, match="'nothing_here' has no workflow tables; run `wf migrate`"):
        client.submit("a.run.v1")


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("delete from workflow_migration where version > 1", "is at version 1, .* run `wf migrate`"),
        (
            "insert into workflow_migration (version, name, checksum) values (9999, 'later', '')",
            "is at version 9999, newer than .* upgrade simpleworkflow",
        ),
    ],
)
def test_an_older_or_newer_schema_is_told_with_the_remedy(
    client: Any, db: Database, change: str, remedy: str
) -> None:
    db.execute(change.encode())

    with pytest.raises(SchemaMismatch, match=remedy):
        client.list()


def test_a_client_works_as_soon_as_the_schema_is_mended(client: Any, db: Database) -> None:
    db.execute("insert into workflow_migration (version, name, checksum) values (9999, 'later', '')")
    with pytest.raises(SchemaMismatch):
        client.submit("a.run.v1")

    db.execute("delete from workflow_migration where version = 9999")

    assert client.submit("a.run.v1").created


@pytest.mark.parametrize("options", [{"schema": "not a name"}, {"pool_size": 0}, {"pool_size": "10"}])
def test_a_bad_option_is_refused_when_the_client_is_made(open_client: Any, options: Any) -> None:
    with pytest.raises(Exception, match="expected"):
        open_client("postgresql://someone@127.0.0.1/nowhere", **options)


# ── connections that break ─────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Database and network", "all sessions of a client are terminated at rest", "P1")
def test_sessions_killed_at_rest_are_not_noticed_by_anybody(client: Any, db: Database) -> None:
    client.submit("a.run.v1")
    for _ in range(3):
        assert kill_sessions(db) == 1

        client.submit("a.run.v1")  # without a key: it must not even be uncertain

    assert count(db, "workflow_run") == 4


@pytest.mark.fault("Database and network", "the answer to a submission with a key is lost", "P9")
def test_a_lost_answer_to_a_submission_with_a_key_is_asked_for_again(
    open_client: Any, database_url: str, db: Database
) -> None:
    with Proxy(database_url) as proxy:
        client = open_client(proxy.url)
        client.list()
        lost = proxy.swallow("")

        handle = client.submit("a.run.v1", idempotency_key="k")

        assert lost.wait()
        assert count(db, "workflow_run") == 1
        assert client.get(handle.id).idempotency_key == "k"


@pytest.mark.fault("Database and network", "the answer to a submission without a key is lost", "P1")
def test_a_lost_answer_to_a_submission_without_a_key_is_unknown_and_not_sent_again(
    open_client: Any, database_url: str, db: Database
) -> None:
    with Proxy(database_url) as proxy:
        client = open_client(proxy.url)
        client.list()
        proxy.swallow("")

        with pytest.raises(DatabaseUnavailable, match="unknown whether the change was recorded") as caught:
            client.submit("a.run.v1")

        assert "idempotency key" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert count(db, "workflow_run") == 1
        assert client.submit("a.run.v1").created


@pytest.mark.fault("Database and network", "the answer to another verb is lost", "P6")
@pytest.mark.parametrize("verb", ["get", "events", "cancel"])
def test_a_lost_answer_to_a_repeatable_verb_is_not_noticed(
    open_client: Any, database_url: str, db: Database, verb: str
) -> None:
    run_id = a_run(db)
    with Proxy(database_url) as proxy:
        client = open_client(proxy.url)
        client.list()
        lost = proxy.swallow("")

        getattr(client, verb)(run_id)

        assert lost.wait()


@pytest.mark.fault("Database and network", "sessions are terminated before the COMMIT of many runs", "P1")
def test_many_runs_whose_connection_is_lost_before_the_commit_are_known_not_to_be_there(
    open_client: Any, database_url: str, db: Database
) -> None:
    client = open_client(database_url)
    client.list()

    def runs() -> Iterator[NewRun]:
        for n in range(12_000):
            if n == 11_000:  # the first statement is under way by now
                kill_sessions(db)
            yield NewRun(type="a.run.v1", payload={"n": n})

    with pytest.raises(DatabaseUnavailable, match="none of the runs was recorded") as caught:
        client.submit_many(runs())

    assert "\n" not in str(caught.value)
    assert count(db, "workflow_run") == 0


@pytest.mark.fault("Database and network", "the server is away for 0.4 s during a submission", "P1")
def test_a_server_that_comes_back_within_a_second_is_not_noticed(
    open_client: Any, database_url: str, db: Database
) -> None:
    with Proxy(database_url) as proxy:
        client = open_client(proxy.url)
        client.submit("a.run.v1")
        proxy.refuse()
        proxy.reset()
        up_again = threading.Timer(0.4, proxy.heal)
        up_again.start()

        handle = client.submit("a.run.v1")
        up_again.join()

        assert status_of(db, str(handle.id)) == "pending"


class Lost:
    """A connection, open or not."""

    def __init__(self, *, closed: bool) -> None:
        self.closed = closed


@pytest.mark.parametrize(
    ("error", "is_repeatable", "is_closed", "is_sent_again"),
    [
        (psycopg.errors.SerializationFailure(), False, False, True),
        (psycopg.errors.DeadlockDetected(), False, False, True),
        (psycopg.errors.ReadOnlySqlTransaction(), False, False, True),
        (psycopg.errors.QueryCanceled(), True, False, False),
        (psycopg.errors.UniqueViolation(), True, False, False),
        (DatabaseUnavailable("gone"), True, True, True),
        (DatabaseUnavailable("gone"), False, True, False),
        (DatabaseUnavailable("the disk is full"), True, False, False),
        (ValueError(), True, False, False),
    ],
)
def test_a_statement_is_sent_again_only_where_that_does_no_harm(
    error: Exception, is_repeatable: bool, is_closed: bool, is_sent_again: bool
) -> None:
    retrying = Retrying(is_repeatable=is_repeatable, is_change=True, reconnects=True)

    try:
        retrying.pause_after(error, Lost(closed=is_closed))
    except Exception:
        was_sent_again = False
    else:
        was_sent_again = True

    assert was_sent_again is is_sent_again


def test_trying_again_ends_with_the_error_itself_within_two_seconds() -> None:
    retrying = Retrying(is_repeatable=True, is_change=True, reconnects=True)
    error = DatabaseUnavailable("gone")

    pauses: list[float] = []

    def try_on() -> None:
        while True:
            pauses.append(retrying.pause_after(error, None))

    with pytest.raises(DatabaseUnavailable) as caught:
        try_on()

    assert caught.value is error
    assert sum(pauses) < 2


def test_a_try_that_took_long_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    retrying = Retrying(is_repeatable=True, is_change=True, reconnects=True)

    monkeypatch.setattr("simpleworkflow.client.retrying.monotonic", lambda: time.monotonic() + 10)

    with pytest.raises(DatabaseUnavailable):
        retrying.pause_after(DatabaseUnavailable("silent"), None)


# ── threads, processes, the end ────────────────────────────────────────────────────────────────────


def test_many_threads_share_few_connections(database_url: str, db: Database) -> None:
    with Client(database_url, pool_size=3) as client, ThreadPoolExecutor(20) as threads:
        handles = list(threads.map(lambda n: client.submit("a.run.v1", n), range(400)))
        open_now = len(sessions(db))

    assert len({handle.id for handle in handles}) == count(db, "workflow_run") == 400
    assert open_now <= 3


def test_one_who_finds_no_free_connection_is_told_so(
    database_url: str, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "FREE_CONNECTION_SECONDS", 0.05)
    with Client(database_url, pool_size=1) as client:
        client.list()

        def runs() -> Iterator[tuple[str, Any]]:
            for n in range(12_000):
                if n == 11_000:
                    client.list()  # while submit_many holds the only connection
                yield ("a.run.v1", n)

        with pytest.raises(DatabaseUnavailable, match="none of the client's 1 connections became free"):
            client.submit_many(runs())

    assert count(db, "workflow_run") == 0


def test_a_closed_client_connects_anew(client: Any) -> None:
    first = client.submit("a.run.v1")

    client.close()

    assert client.get(first.id).id == first.id


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_uses_connections_of_its_own(database_url: str, db: Database) -> None:
    with Client(database_url) as client:
        client.submit("of.parent.v1")
        before = sessions(db)

        child = os.fork()
        if child == 0:
            try:
                client.submit("of.child.v1")
                client.close()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        client.submit("of.parent.v1")

        assert status == 0
        assert sessions(db) == before
    assert count(db, "workflow_run", "type = 'of.parent.v1'") == 2
    assert count(db, "workflow_run", "type = 'of.child.v1'") == 1


def test_a_client_that_nobody_closed_leaves_neither_warning_nor_session(
    database_url: str, db: Database
) -> None:
    Client(database_url).submit("a.run.v1")  # warnings are errors here

    gc.collect()

    deadline = time.monotonic() + 10
    while sessions(db):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("face", ["Client", "AsyncClient"])
def test_a_program_that_ends_without_closing_is_silent(database_url: str, face: str) -> None:
    program = f"""
import asyncio, os
from simpleworkflow import {face}
client = {face}(os.environ["TEST_URL"])
async def story():
    answer = client.submit("a.run.v1")
    if asyncio.iscoroutine(answer):
        answer = await answer
        asyncio.create_task(answer.wait())
        await asyncio.sleep(0)
asyncio.run(story())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        env=os.environ | {"TEST_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_importing_the_clients_imports_no_worker_and_no_extra() -> None:
    program = """
import sys
import simpleworkflow
simpleworkflow.Client("postgresql://localhost/db")
print([name for name in ("simpleworkflow.worker", "sqlalchemy", "django", "asyncpg") if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "[]\n"


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
