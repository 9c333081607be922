"""What whoever is on call costs and waits for: the server's answers on big tables, and dashboards beside a drain."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import quantiles
from threading import Thread

import psycopg
from psycopg.conninfo import conninfo_to_dict

from scenarios.figures import Figure, Target, in_turns, rates, ratio
from scenarios.ground import Ground, NotMeasured, Place, in_schema
from scenarios.history import load_finished
from scenarios.loads import CHUNK_RUNS_MAX, NOOP, Load, value
from stage import SCHEMA

DASHBOARDS = 5
ASKED_TIMES = 40
STREAMED_RUNS = 200
SERVER_SECONDS_MAX = 30
DRAINED_A_SECOND_MAX = 80_000
EVENTS_A_RUN = 2  # claimed, succeeded; nothing is submitted meanwhile
API = "/api/v1"
WAITING = Load(type="waiting.v1")
AN_ID = f"select id from {SCHEMA}.workflow_run where type = %s order by id limit 1"
_BACKLOG = f"""
select count(*) from (
  select from {SCHEMA}.workflow_run
   where status = 'pending' and deleted_at is null and not is_suspect and type = %s limit %s) as waiting"""
_EVENTS = f"select last_value from {SCHEMA}.workflow_event_id_seq"
_LONGEST = """
select max_exec_time, regexp_replace(left(query, 300), '\\s+', ' ', 'g') from pg_stat_statements
 where dbid = (select oid from pg_database where datname = %s)
 order by 1 desc limit 1"""


def operate(ground: Ground) -> Iterator[Figure]:
    """Time each answer with many runs pending and finished, the stream's delay, and a drain beside five dashboards."""
    sizes = ground.sizes
    with ground.place() as place:
        load_finished(ground, place.url, sizes.finished)
        WAITING.submit(place.conn, sizes.others)
        place.conn.execute(f"select {SCHEMA}.recount()".encode())
        place.settle()
        _count_statements(ground, place)
        with serving(place.url) as port:
            yield from _answers(ground, place, port)
            yield from _stream(place, port)
            yield from _beside(place, port)


@contextmanager
def serving(url: str) -> Iterator[int]:
    """Yield the port of a ``wf server``."""
    command = [str(Path(sys.executable).with_name("wf")), "server", "--port", "0"]
    server = subprocess.Popen(
        command, env=os.environ | {"DATABASE_URL": in_schema(url)}, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if found := re.search(r"http://[^/]*:(\d+)/", line):
                break
        else:
            raise NotMeasured("wf server did not start")
        Thread(target=server.stderr.read, daemon=True).start()
        yield int(found[1])
    finally:
        server.terminate()
        server.wait(SERVER_SECONDS_MAX)


def _answers(ground: Ground, place: Place, port: int) -> Iterator[Figure]:
    name = str(conninfo_to_dict(place.url)["dbname"])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with psycopg.connect(ground.superuser_url, autocommit=True) as observer:
        can_count = _can_count(observer)
        for shown, path in _paths(place).items():
            _get(connection, path)  # what a session asks for the first time is planned
            if can_count:
                observer.execute("select pg_stat_statements_reset()")
            values = [_get(connection, path) for _ in range(ASKED_TIMES)]
            yield Figure(f"GET {shown}, p95", "ms", [quantiles(values, n=20)[18]], Target(most=100))
            row = observer.execute(_LONGEST.encode(), [name]).fetchone() if can_count else None
            if row:
                yield Figure(f"  its longest query: {row[1][:44]}", "ms", [row[0]], Target(most=50))


def _count_statements(ground: Ground, place: Place) -> None:
    """Let the sessions that follow have their statements timed, where the server can."""
    with psycopg.connect(ground.superuser_url, autocommit=True) as conn:
        if _can_count(conn):
            name = str(conninfo_to_dict(place.url)["dbname"])
            conn.execute("create extension if not exists pg_stat_statements")
            conn.execute(f"alter database {name} set pg_stat_statements.track = 'top'".encode())


def _can_count(conn: psycopg.Connection) -> bool:
    return bool(
        value(conn, "select position('pg_stat_statements' in current_setting('shared_preload_libraries'))")
    )


def _paths(place: Place) -> dict[str, str]:
    """Return what is asked, by how it is shown."""
    finished, waiting = (value(place.conn, AN_ID, type_) for type_ in ("past.kind3.v1", WAITING.type))
    paths = [
        "/stats?window_seconds=300",
        "/stats?window_seconds=86400",
        "/types?window_seconds=300",
        "/workers",
        "/health",
        "/operations",
        "/schedules",
        "/runs?limit=50",
        "/runs?limit=50&status=failed",
        "/runs?limit=50&status=pending",
        "/runs?limit=50&status=cancelled",
        "/runs?limit=50&pattern=past.kind3.v1",
        "/runs?limit=50&pattern=absent.%25",
        "/runs?limit=50&pattern=absent.%25&status=failed",
        "/runs?limit=50&worker=absent",
        "/runs?limit=50&key=absent",
        "/runs?limit=50&created_before=2000-01-01T00:00:00Z",
        f"/runs/{finished}",
        f"/runs/{finished}/events",
        f"/runs/{finished}/why",
        f"/runs/{waiting}/why",
        "/metrics",
    ]
    return {path.replace(str(finished), "FINISHED").replace(str(waiting), "PENDING"): path for path in paths}


def _get(connection: http.client.HTTPConnection, path: str) -> float:
    """Return the milliseconds that an answer took."""
    started = time.monotonic()
    connection.request("GET", path if path == "/metrics" else API + path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise NotMeasured(f"GET {path} was answered with {answer.status}: {body[:200]!r}")
    return (time.monotonic() - started) * 1000


@contextmanager
def _streaming(port: int, query: str = "") -> Iterator[dict[str, float]]:
    """Listen to events, all if the query says nothing; yield when each run's first one was read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"{API}/events{query}")
    answer = connection.getresponse()
    if answer.status != 200:
        raise NotMeasured(f"the stream was answered with {answer.status}")
    assert connection.sock is not None
    read_at: dict[str, float] = {}
    reading = Thread(target=_read_stream, args=[answer, read_at])
    reading.start()
    try:
        yield read_at
    finally:
        connection.sock.shutdown(socket.SHUT_RDWR)
        reading.join()
        connection.close()


def _stream(place: Place, port: int) -> Iterator[Figure]:
    """Submit run after run; yield how long after its commit each was read from the stream of events."""
    committed_at: dict[str, float] = {}
    with _streaming(port, f"?pattern={WAITING.type}") as read_at:
        time.sleep(2)
        for _ in range(STREAMED_RUNS):
            id_ = value(
                place.conn, f"select id::text from {SCHEMA}.submit(%s::text, '{{}}'::jsonb)", WAITING.type
            )
            committed_at[id_] = time.monotonic()
            time.sleep(0.02)
        deadline = time.monotonic() + 10
        while not read_at.keys() >= committed_at.keys():
            if time.monotonic() > deadline:
                missing = len(committed_at.keys() - read_at.keys())
                raise NotMeasured(
                    f"{missing} of {STREAMED_RUNS} events did not come on the stream within 10 s"
                )
            time.sleep(0.05)
    delays = [1000 * (read_at[id_] - at) for id_, at in committed_at.items()]
    cut = quantiles(delays, n=20)
    yield Figure("from a commit to the stream's event, median", "ms", [cut[9]])
    yield Figure("from a commit to the stream's event, p95", "ms", [cut[18]])


def _read_stream(answer: http.client.HTTPResponse, read_at: dict[str, float]) -> None:
    with suppress(http.client.HTTPException, OSError):
        while line := answer.readline():
            if line.startswith(b"data:"):
                read_at.setdefault(json.loads(line[5:])["run_id"], time.monotonic())


def _beside(place: Place, port: int) -> Iterator[Figure]:
    """Let a worker drain without a pause; yield its rates beside open dashboards, beside a stream, and alone."""

    @contextmanager
    def pages() -> Iterator[None]:
        command = [sys.executable, "growth_dashboards.py", str(port), str(DASHBOARDS)]
        asking = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE)
        assert asking.stdout is not None
        try:
            if asking.stdout.readline() != b"open\n":
                raise NotMeasured("growth_dashboards.py could not ask the server")
            yield
        finally:
            asking.terminate()
            asking.wait(SERVER_SECONDS_MAX)

    sizes = place.ground.sizes
    backlog = int(DRAINED_A_SECOND_MAX * sizes.beside_seconds)

    def rate(beside: AbstractContextManager[object]) -> float:
        while value(place.conn, _BACKLOG, NOOP.type, backlog) < backlog:
            NOOP.submit(place.conn, min(CHUNK_RUNS_MAX, backlog))
        place.ground.checkpoint()
        with beside:
            before, since = value(place.conn, _EVENTS), time.monotonic()
            time.sleep(sizes.beside_seconds)
            runs: float = (value(place.conn, _EVENTS) - before) / EVENTS_A_RUN
            return runs / (time.monotonic() - since)

    cases = {
        "dashboards": lambda: rate(pages()),
        "stream": lambda: rate(_streaming(port)),
        "alone": lambda: rate(nullcontext()),
    }
    values = in_turns(sizes.beside, cases)
    name = f"drain beside {DASHBOARDS} open dashboards ÷ alone"
    yield ratio(name, values["dashboards"], values["alone"], Target(least=0.95))
    yield ratio("drain beside a stream of all events ÷ alone", values["stream"], values["alone"])
    for case in cases:
        yield rates(case if case == "alone" else f"beside {case}", values[case])
