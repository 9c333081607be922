"""What the worker's tests play on: workers in this process, and in programs of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TypeVar

from psycopg.conninfo import conninfo_to_dict

from builders import Database, column_of, status_of
from simpleworkflow import Worker
from simpleworkflow.dburl import parse

T = TypeVar("T")

HERE = Path(__file__).parent
WF = str(Path(sys.executable).with_name("wf"))
TERMINAL = ("succeeded", "failed", "cancelled")
_pause = threading.Event()  # never set: a pause between two looks


def eventually(look: Callable[[], T], *, seconds: float = 10, every: float = 0.01, what: str = "") -> T:
    """Return the first true answer of ``look``; fail after ``seconds``."""
    until = monotonic() + seconds
    while not (answer := look()):
        assert monotonic() < until, f"not within {seconds} s: {what or 'the condition'}; last: {answer!r}"
        _pause.wait(every)
    return answer


def ended(db: Database, run_id: str, *, seconds: float = 10) -> str:
    """Return how a run ended; one that has not is told with its history."""
    try:
        eventually(lambda: status_of(db, run_id) in TERMINAL, seconds=seconds)
    except AssertionError:
        raise AssertionError(
            f"not ended within {seconds} s: run {run_id}\n{history_of(db, run_id)}"
        ) from None
    return status_of(db, run_id)


def history_of(db: Database, run_id: str) -> str:
    """Return the events of a run, a line each: when, which, whose."""
    events = db.execute(
        "select created_at::time, event_type, data from workflow_event where workflow_id = %s order by id",
        [run_id],
    )
    return "\n".join(" ".join(map(str, event)) for event in events)


def error_of(db: Database, run_id: str) -> str:
    """Return the last error of a run."""
    return str(column_of(db, run_id, "last_error"))


def is_running(pid: int) -> bool:
    """Return whether a process lives; one that only waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    """Return the living child processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid and is_running(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


class WorkerThread:
    """A worker in a thread of this process, with its own loop and its heart beside it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> WorkerThread:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.error is None, repr(self.error)

    def stop(self) -> None:
        """Do what a signal does."""
        if self.thread.is_alive():
            self._loop.call_soon_threadsafe(self.worker.stop)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self.worker.run_async())
        except BaseException as error:
            self.error = error


class Program:
    """A program of its own: ``wf worker TARGET``, or ``python apps.py``; its log is kept for the tests."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        target: str = "apps:worker",
        options: Sequence[str] = (),
        is_script: bool = False,
        wf: Sequence[str] = (WF,),
        **environment: str,
    ) -> None:
        command = [sys.executable, "apps.py"] if is_script else [*wf, "worker", target, *options]
        self.log_path = folder / f"log-{len(list(folder.iterdir()))}"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=HERE,
                env=os.environ
                | {"DATABASE_URL": url, "NOTES": str(folder / "notes"), "SIMPLEWORKFLOW_LOG_LEVEL": "INFO"}
                | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)
        if kind is not None:
            print(self.log)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text(errors="replace")

    def started(self, count: int = 1) -> Program:
        """Wait until ``count`` worker processes have started."""
        eventually(lambda: self.log.count(" started for ") >= count, seconds=20, what=f"a start\n{self.log}")
        return self

    def children(self) -> list[int]:
        """Return the processes that it started."""
        return children_of(self.pid)

    def signal(self, number: int) -> float:
        """Send a signal; return when."""
        self.process.send_signal(number)
        return monotonic()

    def exit_code(self, *, seconds: float = 20) -> int:
        """Wait for its end."""
        return self.process.wait(seconds)


def at_port(url: str, port: int) -> str:
    """Return ``url`` with another port of this machine."""
    place = parse(url)
    return f"{make_conninfo_url(place.conninfo, port)}&schema={place.schema}"


def make_conninfo_url(conninfo: str, port: int) -> str:
    values = conninfo_to_dict(conninfo)
    secret = f":{values['password']}" if values.get("password") else ""
    return f"postgresql://{values['user']}{secret}@127.0.0.1:{port}/{values['dbname']}?sslmode=disable"


class Notes:
    """What the handlers of ``apps.py`` have noted: lines of what, run id, token, pid."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notes"

    def all(self, what: str, run_id: str | None = None) -> list[tuple[str, ...]]:
        """Return the lines of one kind, of one run if named."""
        text = self._path.read_text() if self._path.exists() else ""
        lines = [tuple(line.split()) for line in text.splitlines()]
        return [line for line in lines if line[0] == what and run_id in (None, line[1])]

    def wait(
        self, what: str, run_id: str | None = None, *, count: int = 1, seconds: float = 10
    ) -> tuple[str, ...]:
        """Wait for ``count`` lines; return the last."""
        said = f"{count} notes {what!r} of run {run_id}"
        return eventually(
            lambda: len(self.all(what, run_id)) >= count and self.all(what, run_id),
            seconds=seconds,
            what=said,
        )[-1]  # type: ignore[index]
