"""As fast after ten minutes as after one, at 70 % of the peak, with autovacuum at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import psycopg

from scenarios.figures import Figure, Target
from scenarios.ground import Ground, Place, steady
from scenarios.loads import NOOP, last_finish, now, value, wait_until_ended
from stage import SCHEMA

LEAST = Target(least=0.95)
FLAT = Target(most=1.05)
SHARE = 0.7
PARTS = 10  # minutes, when it lasts ten
BEAT_SECONDS = 0.1
PEAK_CHUNK_RUNS = 2_000

_RELATIONS = ("workflow_run", "workflow_event")


def steady_load(ground: Ground) -> Iterator[Figure]:
    """The last tenth's rate ÷ the second's, and whether the tables grow no faster than the runs do."""
    with ground.place() as place:
        peak = _peak(place)
        part_seconds = ground.sizes.minutes * 60 / PARTS
        began_at = now(place.conn)
        sizes = _load_steadily(place, SHARE * peak, part_seconds)
        wait_until_ended(place.conn, NOOP)
        late = (last_finish(place.conn) - began_at).total_seconds() - PARTS * part_seconds
        ended = [
            _finished_in(place.conn, began_at, part_seconds, part) / part_seconds for part in range(PARTS)
        ]
    yield Figure(
        f"last tenth ÷ second of {ground.sizes.minutes:g} minutes", "ratio", [ended[-1] / ended[1]], LEAST
    )
    yield Figure("finished, in each tenth", "runs/s", ended)
    yield Figure("peak while submitting", "runs/s", [peak])
    yield Figure("the backlog's end after the last submit", "s", [late])
    for relation in _RELATIONS:
        per_run = [one[relation] for one in sizes]
        name = f"{relation} and indexes"
        yield Figure(f"{name}, B per run, last ÷ second tenth", "ratio", [per_run[-1] / per_run[1]], FLAT)
        yield Figure(f"{name}, each tenth, per run", "B", per_run)


def _peak(place: Place) -> float:
    """Return the runs a second that one producer and the worker manage together, from first submit to last finish."""
    runs = place.ground.sizes.runs
    began_at = now(place.conn)
    NOOP.submit(place.conn, runs, chunk=PEAK_CHUNK_RUNS)
    wait_until_ended(place.conn, NOOP)
    return runs / (last_finish(place.conn) - began_at).total_seconds()


def _load_steadily(place: Place, rate: float, part_seconds: float) -> list[dict[str, float]]:
    """Submit at a rate; return the size per run of each relation at the end of every part."""
    stopping = threading.Event()
    failures: list[Exception] = []
    producer = threading.Thread(target=_produce, args=(place.url, rate, stopping, failures), daemon=True)
    producer.start()
    began, sizes = time.monotonic(), []
    for part in range(1, PARTS + 1):
        while (left := began + part * part_seconds - time.monotonic()) > 0 and not failures:
            time.sleep(min(left, 0.5))
        if failures:
            raise failures[0]
        sizes.append({relation: _size_per_run(place.conn, relation) for relation in _RELATIONS})
    stopping.set()
    producer.join(60)
    return sizes


def _produce(url: str, rate: float, stopping: threading.Event, failures: list[Exception]) -> None:
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            steady(conn)
            began, submitted = time.monotonic(), 0
            while not stopping.wait(BEAT_SECONDS):
                # What a late beat missed is made up, so that the rate is what it is said to be.
                due = round(rate * (time.monotonic() - began)) - submitted
                NOOP.submit(conn, due)
                submitted += due
    except psycopg.Error as error:
        failures.append(error)


def _finished_in(conn: psycopg.Connection, began_at: datetime, part_seconds: float, part: int) -> int:
    since = began_at + timedelta(seconds=part * part_seconds)
    until = since + timedelta(seconds=part_seconds)
    question = f"select count(*) from {SCHEMA}.workflow_run where finished_at >= %s and finished_at < %s"
    return int(value(conn, question, since, until))


def _size_per_run(conn: psycopg.Connection, relation: str) -> float:
    # Counted by what the sequence of events has given out: no count of a big table in the middle of a load.
    bytes_ = value(conn, "select pg_total_relation_size(%s::regclass)", f"{SCHEMA}.{relation}")
    events = value(conn, f"select last_value from {SCHEMA}.workflow_event_id_seq")
    return float(bytes_) / (float(events) / 3)
