"""Whoever may connect can notify and take the locks behind it: that makes a worker look, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from builders import Database, a_type, cancel, column_of, submit
from simpleworkflow import Worker
from worker.stage import WorkerThread, ended, eventually

POLL_SECONDS = 1.0

Start = Callable[[Worker], WorkerThread]


class Stage:
    """A worker whose handlers wait for a gate, and what they noted."""

    def __init__(self, url: str, type_: str) -> None:
        self.gate = threading.Event()
        self.started: dict[str, float] = {}
        self.told: list[str] = []
        self.worker = Worker(poll_seconds=POLL_SECONDS, lease_seconds=10, database_url=url)

        @self.worker.handler(type_)
        def handle(run: Any) -> int:
            self.started[str(run.id)] = time.monotonic()
            while not self.gate.wait(0.01):
                if run.is_cancelled():
                    self.told.append(str(run.id))
                    break
            return int(run.attempt)

    def wait_for(self, run_id: str) -> float:
        """Return when the handler of a run started."""
        eventually(lambda: run_id in self.started, what="the start of the run")
        return self.started[run_id]


def say(db: Database, *words: str) -> None:
    """Notify on the channel of the schema, as anybody can."""
    for word in words:
        db.execute("select pg_notify(%s, %s)", [db.schema, word])


def is_hungry(db: Database) -> bool:
    row = db.execute(
        "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted and"
        " (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)",
        [f"{db.schema}.hungry"],
    ).fetchone()
    return row == (1,)


@pytest.mark.fault("Security", "a forged word that a leased run was cancelled", "P2, P8")
@pytest.mark.parametrize("times", [1, 500])
def test_a_forged_word_of_a_cancel_stops_no_handler_and_a_true_one_is_still_learned(
    db: Database, database_url: str, start: Start, times: int
) -> None:
    type_ = a_type()
    stage = Stage(database_url, type_)
    start(stage.worker)
    run_id, other = submit(db, type_), submit(db, type_)
    stage.wait_for(run_id)
    stage.wait_for(other)

    say(db, *[f"cancelled {run_id} 1"] * times)
    at = time.monotonic()
    cancel(db, other)
    eventually(lambda: stage.told, seconds=2, every=0.005)
    learned_after = time.monotonic() - at
    stage.gate.set()

    assert ended(db, run_id) == "succeeded"
    assert column_of(db, run_id, "attempt") == 1
    assert stage.told == [other]
    assert learned_after < 1  # the promise is 250 ms, on a machine that is not overloaded


@pytest.mark.fault("Security", "forged words on the channel of wake-ups", "P7")
@pytest.mark.parametrize(
    "word",
    [
        "",
        "cancelled",
        "cancelled x y",
        "cancelled 00000000-0000-0000-0000-000000000000 1",
        f"cancelled 00000000-0000-0000-0000-000000000000 {'9' * 5000}",
        "cancelled 00000000-0000-0000-0000-000000000000 ٣",
        "hungry %",
        "hungry " + "x" * 7900,
        "vacant",
        "wake %",
        "wake " + "\x01" * 7900,
        "x" * 7999,
    ],
    ids=lambda word: f"{word[:24]!a}, {len(word)} characters",
)
def test_whatever_is_said_a_run_starts_by_the_poll_and_the_worker_goes_on_listening(
    db: Database, database_url: str, start: Start, word: str
) -> None:
    type_ = a_type()
    stage = Stage(database_url, type_)
    stage.gate.set()
    start(stage.worker)
    eventually(lambda: is_hungry(db))

    say(db, word, word)
    sent = time.monotonic()
    first = submit(db, type_)
    assert stage.wait_for(first) - sent < POLL_SECONDS + 0.25 + 0.25  # and its own time to start
    eventually(lambda: is_hungry(db))

    sent = time.monotonic()
    assert stage.wait_for(submit(db, type_)) - sent < POLL_SECONDS + 0.25 + 0.25


@pytest.mark.fault("Security", "a stranger holds the lock of the wake-ups", "P7")
@pytest.mark.parametrize("verb", ["pg_advisory_lock", "pg_advisory_lock_shared"])
def test_while_a_stranger_holds_the_lock_of_the_hungry_a_run_starts_by_the_poll(
    db: Database, database_url: str, start: Start, connection: Callable[..., Database], verb: str
) -> None:
    type_, stranger = a_type(), connection()
    stage = Stage(database_url, type_)
    stage.gate.set()
    stranger.execute(f"select {verb}(hashtextextended('{db.schema}.hungry', 0))".encode())
    start(stage.worker)
    stage.wait_for(submit(db, type_))

    for _ in range(3):
        sent = time.monotonic()
        assert stage.wait_for(submit(db, type_)) - sent < POLL_SECONDS + 0.25 + 0.25
