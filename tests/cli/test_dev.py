"""``wf dev``: a worker that starts anew when its sources change, and leaves nothing behind when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from builders import connect, status_of, submit
from simpleworkflow import Client
from waits import until

MODULE = """
from simpleworkflow import Worker

worker = Worker(poll_seconds=0.5)


@worker.handler("dev.v1")
def handle(run):
    return RESULT
"""


class Dev:
    """``wf dev app:worker`` in a folder of its own; what it says goes into a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *options: str) -> None:
        self.folder, self.said_path = folder, folder / "said.txt"
        with self.said_path.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "simpleworkflow.cli", "dev", "app:worker", *options],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.said_path.read_text(errors="replace")

    def says(self, what: str, times: int = 1) -> None:
        until(lambda: self.said().count(what) >= times, f"{what!r} {times} times in {self.said()!r}")

    def write(self, text: str) -> None:
        (self.folder / "app.py").write_text(text)

    def processes(self) -> list[int]:
        """Return what runs on behalf of this folder."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "cwd") == str(self.folder):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def dev(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(result: str = "1", *options: str) -> Dev:
        (tmp_path / "app.py").write_text(MODULE.replace("RESULT", result))
        started.append(Dev(tmp_path, {"DATABASE_URL": database_url}, *(options or ("--no-server",))))
        return started[-1]

    yield start
    for one in started:
        one.stop(signal.SIGKILL)
        until(lambda one=one: one.processes() == [], "the end of all it had started")


def test_a_change_is_what_the_next_run_sees(dev, database_url):
    one = dev("1")
    with Client(database_url) as client:
        assert client.submit("dev.v1").result(timeout=30) == 1

        one.write(MODULE.replace("RESULT", "'something longer'"))
        one.says("app.py changed")
        one.says(" started for ", 2)

        assert client.submit("dev.v1").result(timeout=30) == "something longer"


def test_a_module_that_cannot_be_imported_is_one_line_and_waits_for_the_next_change(dev, database_url):
    one = dev("1")
    one.says(" started for ")

    one.write(MODULE.replace("RESULT", "(("))
    one.says("it starts anew when a file changes")

    [line] = [line for line in one.said().splitlines() if "SyntaxError" in line]
    assert line.startswith("wf: error: worker 'app:worker'")
    assert "Traceback" not in one.said()
    one.write(MODULE.replace("RESULT", "2"))
    with Client(database_url) as client:
        assert client.submit("dev.v1").result(timeout=30) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_all_that_it_has_started(dev, number):
    one = dev("1")
    one.says(" started for ")

    code = one.stop(number)

    assert code == 130
    until(lambda: one.processes() == [], "the end of all it had started")
    assert "Traceback" not in one.said()


@pytest.mark.fault("Death, pause, leases", "wf dev is killed", "P1")
def test_killed_it_leaves_nothing_behind(dev):
    one = dev("1")
    one.says(" started for ")

    one.stop(signal.SIGKILL)

    until(lambda: one.processes() == [], "the end of all it had started")


def test_a_handler_that_runs_on_gives_its_run_back_when_its_source_changes(dev, database_url):
    waits = MODULE.replace("def handle(run):", "async def handle(run):\n    import asyncio").replace(
        "return RESULT", "await asyncio.sleep(600 if run.attempt == 1 and WAITS else 0)\n    return 3"
    )
    one = dev("1")
    one.says(" started for ")
    one.write(waits.replace("WAITS", "True"))
    one.says(" started for ", 2)
    with connect(database_url) as db, Client(database_url) as client:
        run_id = submit(db, "dev.v1")
        until(lambda: status_of(db, run_id) == "leased", "its start")

        one.write(waits.replace("WAITS", "False"))

        assert client.wait(run_id, timeout=30).result == 3


def test_an_old_schema_is_brought_up_to_date(tmp_path, server):
    schema = f"dev_{os.getpid()}"
    (tmp_path / "app.py").write_text(MODULE.replace("RESULT", "1"))
    one = Dev(tmp_path, {"DATABASE_URL": server.url_of(schema)}, "--no-server")
    try:
        one.says(" started for ")
        assert "migrations applied" in one.said()
    finally:
        one.stop()
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute(f"drop schema if exists {schema} cascade".encode())


def test_the_dashboard_comes_with_it(dev):
    pytest.importorskip("uvicorn")
    one = dev("1", "--port", "0")

    one.says("serving http://127.0.0.1:")
    one.says(" started for ")
    assert one.stop() == 130


def test_what_is_no_target_is_said_at_once(database_url):
    answer = subprocess.run(
        [sys.executable, "-m", "simpleworkflow.cli", "dev", "a b:c"],
        env=os.environ | {"DATABASE_URL": database_url},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stderr.count(b"\n")) == (2, 1)
