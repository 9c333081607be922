"""Real programs, real process lists, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAM = """
import json, sys
from pathlib import Path
from simpleworkflow.embedded import start
from simpleworkflow.errors import EmbeddedPostgresError
try:
    server = start(Path(sys.argv[1]))
except EmbeddedPostgresError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit(1)
print(json.dumps({"url": server.url, "started_here": server.started_here}), flush=True)
"""
WAIT_FOR_END = "sys.stdin.read()\n"


class Program:
    """A program of its own that starts or joins the folder's server, and stays until it is ended."""

    def __init__(self, folder: Path, *, then: str = WAIT_FOR_END, python: str = sys.executable, **options):
        self._process = subprocess.Popen(
            [python, "-c", PROGRAM + then, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self.pid = self._process.pid
        self._answer: dict[str, object] = {}

    @property
    def answer(self) -> dict[str, object]:
        """What start() returned, or its error; waits for it."""
        if not self._answer:
            self._answer = json.loads(self._process.stdout.readline())
        return self._answer

    @property
    def url(self) -> str:
        assert "url" in self.answer, self.answer
        return str(self.answer["url"])

    def line(self) -> str:
        """The next line that it prints."""
        return self._process.stdout.readline().strip()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)
        self._close()

    def end(self) -> None:
        self._process.stdin.close()
        self._close()

    def _close(self) -> None:
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
            raise
        finally:
            for stream in (self._process.stdin, self._process.stdout):
                if not stream.closed:
                    stream.close()


def programs_of(folder: Path, kind: str) -> list[int]:
    """Process ids of the folder's ``keeper``, ``postmaster`` or ``server`` (the postmaster and its children)."""
    rows = _living()
    if kind == "keeper":
        return [int(row[0]) for row in rows if "keeper.py" in row[3] and str(folder) in row[3]]
    masters = [int(row[0]) for row in rows if f"-D {folder / 'data'} " in row[3]]
    if kind == "postmaster":
        return masters
    return masters + [int(row[0]) for row in rows if int(row[1]) in masters]


def _living() -> list[list[str]]:
    command = ["ps", "-e", "-ww", "-o", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
    return [row for row in rows if len(row) == 4 and not row[2].startswith("Z")]


def eventually(is_true: Callable[[], object], *, seconds: float = 10, pause: float = 0.05) -> bool:
    """Return True as soon as the condition holds, False when it has not within the bound."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def all_of(folder: Path) -> list[int]:
    return programs_of(folder, "keeper") + programs_of(folder, "server")


def kill_all(folder: Path) -> bool:
    """Kill what belongs to the folder; return whether it is gone."""
    kill(all_of(folder))
    return eventually(lambda: not all_of(folder))


def stop_now(folder: Path) -> bool:
    """Stop the server in good order without waiting for its keeper; return whether it is gone."""
    kill(programs_of(folder, "keeper"))
    kill(programs_of(folder, "postmaster"), signal.SIGINT)
    return eventually(lambda: not all_of(folder))


def is_running(pid: int) -> bool:
    """Return whether the process lives; a zombie does not."""
    return any(row[0] == str(pid) for row in _living())


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
