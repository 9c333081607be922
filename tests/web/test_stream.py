"""The stream of all events: nothing lost, nothing twice, across reconnects, restarts and transactions of any length."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from builders import Database, a_run, a_type, connect, submit
from cli.programs import environment  # noqa: F401 - a fixture
from cli.test_server import a_server

API = "/api/v1"


class Listener:
    """Listens to ``/events`` as a browser does: it comes back with the last id that it was told."""

    def __init__(self, query: str = "") -> None:
        self.query = query
        self.last_id: str | None = None
        self.events: list[dict] = []
        self.started = threading.Event()

    def listen(
        self, url: str, *, until: int | None = None, seconds: float = 30, at_most: int = 10**9
    ) -> None:
        """Listen until so many events have come in all, or so many now, or the stream ends, or the time is over."""
        headers = {} if self.last_id is None else {"Last-Event-ID": self.last_id}
        asked = urllib.request.Request(f"{url}{API}/events{self.query}", headers=headers)
        deadline, now = time.monotonic() + seconds, 0
        with urllib.request.urlopen(asked, timeout=seconds) as answer:
            id_, text = None, None
            while time.monotonic() < deadline and now < at_most:
                line = answer.readline().decode().rstrip("\n")
                if line.startswith("id: "):
                    id_ = line[4:]
                elif line.startswith("data: "):
                    text = line[6:]
                elif line == "":
                    if id_ is None:
                        return  # the server has ended it
                    self.last_id = id_
                    self.started.set()
                    if text is not None:
                        self.events.append(json.loads(text))
                        now += 1
                    id_, text = None, None
                    if until is not None and len(self.events) >= until:
                        return


@pytest.fixture
def url(environment: dict[str, str], database_url: str) -> Iterator[str]:  # noqa: F811
    """The URL of a running server on the schema of the test."""
    with a_server(environment, database_url) as (url, _):
        yield url


def test_who_listens_hears_what_happens_from_then_on(url: str, db: Database) -> None:
    submit(db)
    listener = Listener()
    thread = threading.Thread(target=listener.listen, args=[url], kwargs={"until": 3})
    thread.start()
    assert listener.started.wait(30)

    run_id = a_run(db, status="failed", type="a.b.v1")
    thread.join(30)

    heard = [one for one in listener.events if one["run_id"] == run_id]
    assert [one["event_type"] for one in heard] == ["created", "leased", "failed"]
    assert heard[0]["type"] == "a.b.v1"
    assert heard[0]["data"]["by"]


def test_the_events_of_one_run_are_told_from_its_first(url: str, db: Database) -> None:
    run_id = a_run(db, status="succeeded")
    a_run(db)
    listener = Listener(f"?run={run_id}")

    listener.listen(url, until=2, seconds=20, at_most=2)
    listener.listen(url, until=3, seconds=20)

    assert [one["event_type"] for one in listener.events] == ["created", "leased", "succeeded"]


def test_only_what_the_patterns_cover_is_told_and_the_place_moves_on_all_the_same(
    url: str, db: Database
) -> None:
    listener = Listener("?pattern=wanted.%25&cursor=0")
    for number in range(450):
        submit(db, "wanted.v1" if number % 150 == 0 else "other.v1")

    listener.listen(url, until=3)

    assert [one["type"] for one in listener.events] == ["wanted.v1"] * 3


def test_a_transaction_that_commits_late_is_heard_and_holds_up_nobody(
    url: str, db: Database, connection
) -> None:
    slow = connection()
    slow.autocommit = False
    late = submit(slow)
    early = submit(db)
    listener = Listener("?cursor=0")

    listener.listen(url, until=1)
    assert [one["run_id"] for one in listener.events] == [early]
    slow.commit()
    listener.listen(url, until=2)

    assert [one["run_id"] for one in listener.events] == [early, late]
    assert listener.events[0]["id"] > listener.events[1]["id"]


@pytest.mark.parametrize("cursor", ["x", "-1", "5~6", "99999999999"])
def test_a_cursor_that_is_none_is_refused(url: str, cursor: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        Listener(f"?cursor={cursor}").listen(url, seconds=10)

    assert refused.value.code in (400, 409)
    assert json.load(refused.value)["error"]["message"].startswith("cursor: ")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_and_nothing_twice_whatever_writers_readers_and_servers_do(
    environment: dict[str, str],  # noqa: F811
    database_url: str,
    db: Database,
    seed: int,
) -> None:
    """Writers hold transactions open for random times and roll some back; the reader leaves, the server is killed."""
    chance = random.Random(seed)
    stop = threading.Event()
    writers = [
        threading.Thread(target=_write, args=[database_url, random.Random(seed * 100 + number), stop])
        for number in range(6)
    ]
    for writer in writers:
        writer.start()
    listener = Listener("?cursor=0")
    try:
        for _ in range(6):
            with a_server(environment, database_url) as (url, process):
                for _ in range(chance.randrange(1, 5)):
                    killer = threading.Timer(chance.uniform(0.2, 2), process.kill)
                    if chance.random() < 0.3:
                        killer.start()
                    with suppress(OSError):  # killed while we listen, or before
                        listener.listen(url, seconds=2, at_most=chance.randrange(1, 400))
                    killer.cancel()
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)
    total = db.execute("select count(*) from workflow_event").fetchone()[0]
    assert total > 500

    with a_server(environment, database_url) as (url, _):
        listener.listen(url, until=total, seconds=60)

    heard = [one["id"] for one in listener.events]
    assert len(heard) == len(set(heard))
    assert sorted(heard) == [row[0] for row in db.execute("select id from workflow_event order by id")]
    by_run: dict[str, list[int]] = {}
    for one in listener.events:
        by_run.setdefault(one["run_id"], []).append(one["id"])
    assert all(ids == sorted(ids) for ids in by_run.values())


def _write(url: str, chance: random.Random, stop: threading.Event) -> None:
    with connect(url) as conn:
        while not stop.is_set():
            with suppress(_Undone), conn.transaction():
                for _ in range(chance.choice((1, 1, 5, 30))):
                    run_id = submit(conn, a_type())
                    with suppress(_Undone), conn.transaction():  # a savepoint
                        conn.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
                        if chance.random() < 0.3:
                            raise _Undone
                    if chance.random() < 0.1:
                        stop.wait(chance.choice((0.01, 0.1, 1.0)))
                if chance.random() < 0.25:
                    raise _Undone


class _Undone(psycopg.Rollback):
    """Rolls a transaction back."""
