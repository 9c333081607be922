"""``wf worker --metrics-port``: what the processes of a worker have done, from the supervisor, for all of them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from builders import Database, cancel, submit
from metrics.scraping import Scrape, a_free_port, url_of
from simpleworkflow import Worker
from simpleworkflow.errors import InvalidInput
from simpleworkflow.metrics.names import NAMES
from worker.stage import Notes, Program, WorkerThread, ended, eventually


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def program(module_url: str, folder: Path) -> Iterator[Program]:
    """Two worker processes that the tests of this module share."""
    options = ["--processes", "2", "--concurrency", "8", "--metrics-port", "0"]
    with Program(module_url, folder, options=options) as program:
        yield program.started(2)


@pytest.fixture
def notes(folder: Path) -> Notes:
    return Notes(folder)


def scraped(program: Program, name: str, value: float, **labels: str) -> Scrape:
    """Wait until the metrics say so: a batch is counted when the database has answered."""
    return eventually(
        lambda: found if (found := Scrape(url_of(program))).value(name, **labels) == value else None,
        what=f"{name} {labels} {value}",
    )


def test_every_metric_of_a_worker_is_there_with_its_kind_from_the_start(program: Program) -> None:
    families = Scrape(url_of(program)).families

    expected = {
        name.removesuffix("_total"): metric.kind for name, metric in NAMES.items() if "worker" in metric.where
    }
    assert {name: one.type for name, one in families.items()} == expected


def test_what_has_ended_is_counted_by_type_and_status(program: Program, module_db: Database) -> None:
    runs = [submit(module_db, "app.quick.v1") for _ in range(20)]
    assert {ended(module_db, run_id) for run_id in runs} == {"succeeded"}

    found = scraped(program, "finished_total", 20, type="app.quick.v1", status="succeeded")

    assert found.value("claimed_total", type="app.quick.v1") == 20
    assert found.value("run_seconds_count", type="app.quick.v1") == 20
    assert found.value("wait_seconds_count", type="app.quick.v1") == 20
    assert found.value("wait_seconds_bucket", type="app.quick.v1", le="+Inf") == 20


def test_the_wait_is_told_by_the_database_from_the_time_that_a_run_was_due(
    program: Program, module_db: Database
) -> None:
    run_id = submit(module_db, "app.thread.v1", {"seconds": 0})  # of a type that no other test counts
    ended(module_db, run_id)
    module_db.execute(
        "insert into workflow_run (type, payload, run_at, created_at)"
        " values ('app.thread.v1', '{\"seconds\": 0}', now() - interval '90 s', now() - interval '90 s')"
    )

    found = scraped(program, "wait_seconds_count", 2, type="app.thread.v1")

    assert found.value("wait_seconds_bucket", type="app.thread.v1", le="60.0") == 1
    assert 90 <= found.value("wait_seconds_sum", type="app.thread.v1") < 150


def test_a_process_that_is_killed_leaves_its_counts_behind(
    program: Program, module_db: Database, notes: Notes
) -> None:
    before = Scrape(url_of(program))
    run_id = submit(module_db, "app.sleep.v1", {"seconds": 60})
    pid = int(notes.wait("sleep", run_id)[3])
    eventually(lambda: Scrape(url_of(program)).value("claimed_total", type="app.sleep.v1") == 1)

    os.kill(pid, signal.SIGKILL)
    assert ended(module_db, run_id) == "succeeded"

    found = scraped(program, "finished_total", 1, type="app.sleep.v1", status="succeeded")
    assert found.value("claimed_total", type="app.sleep.v1") == 2
    assert found.value("expired_total") == before.value("expired_total") + 1
    assert found.value("processes_ended_total") == before.value("processes_ended_total") + 1
    eventually(lambda: Scrape(url_of(program)).value("processes") == 2)


def test_a_handler_that_holds_the_gil_hides_no_metric(
    program: Program, module_db: Database, notes: Notes
) -> None:
    eventually(lambda: Scrape(url_of(program)).value("slots_capacity") == 16)  # both have started
    run_id = submit(module_db, "app.gil.v1", {"seconds": 1.5})
    notes.wait("gil", run_id)

    found = Scrape(url_of(program))

    assert found.value("slots_held") == 1
    assert found.value("claimed_total", type="app.gil.v1") == 1
    assert found.value("finished_total", type="app.gil.v1", status="succeeded") == 0
    assert found.value("database_up") == 1
    assert 0 <= found.value("heartbeat_age_seconds") < 20
    assert ended(module_db, run_id) == "succeeded"


def test_a_cancelled_attempt_is_counted_as_cancelled(
    program: Program, module_db: Database, notes: Notes
) -> None:
    run_id = submit(module_db, "app.long.v1", {"seconds": 60})
    notes.wait("long", run_id)

    cancel(module_db, run_id)

    found = scraped(program, "finished_total", 1, type="app.long.v1", status="cancelled")
    assert found.value("finished_total", type="app.long.v1", status="failed") == 0
    assert found.value("retried_total", type="app.long.v1") == 0


def test_no_label_is_a_worker_a_run_or_a_host(program: Program) -> None:
    text = Scrape(url_of(program)).text

    assert set(re.findall(r'[{,](\w+)="', text)) == {"version", "type", "status", "le"}
    assert socket.gethostname() not in text


def test_a_worker_in_a_program_is_served_by_the_process_beside_it(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, port, called = Worker(database_url=database_url), a_free_port(), threading.Event()

    @worker.handler("beside.one.v1")
    async def handle(run: object) -> None:
        called.set()

    monkeypatch.setattr(worker, "run_async", lambda: Worker.run_async(worker, metrics_port=port))
    with WorkerThread(worker):
        run_id = submit(db, "beside.one.v1")
        assert ended(db, run_id) == "succeeded"

        url = f"http://127.0.0.1:{port}/metrics"
        eventually(lambda: Scrape(url).value("finished_total", type="beside.one.v1", status="succeeded") == 1)
        assert Scrape(url).value("processes") == 1


# ── serving ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/metrics", 200), ("GET", "/", 404), ("POST", "/metrics", 405)],
)
def test_only_metrics_are_there_and_can_only_be_read(
    program: Program, method: str, path: str, status: int
) -> None:
    place = urlsplit(url_of(program)).netloc
    conn = http.client.HTTPConnection(place, timeout=10)
    conn.request(method, path)

    assert conn.getresponse().status == status
    conn.close()


def test_clients_that_say_nothing_keep_nobody_from_the_metrics(program: Program) -> None:
    host, _, port = urlsplit(url_of(program)).netloc.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(30)]

    assert Scrape(url_of(program)).value("processes") == 2

    for one in silent:
        one.close()


def test_a_port_that_is_taken_is_told_in_one_line(database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Program(database_url, tmp_path, options=["--metrics-port", port]) as program:
            assert program.exit_code() == 2
            assert program.log.startswith(f"wf: error: metrics cannot be served at 127.0.0.1:{port}: ")
            assert len(program.log.splitlines()) == 1


def test_who_asks_for_metrics_without_the_extra_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from simpleworkflow.metrics import serving

    monkeypatch.setattr(serving, "find_spec", lambda _: None)

    with pytest.raises(InvalidInput, match=r"pip install 'simpleworkflow\[metrics\]'"):
        serving.listen("127.0.0.1", 0)
