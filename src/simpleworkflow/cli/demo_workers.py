"""The demo's four workers: real processes, whose lines are shown, and none of which stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import click

from simpleworkflow.cli.demo_screen import Screen

START_SECONDS = 15.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05

# How many lines each prints when it starts; the video worker has two processes.
GREETING_LINES = {"basic": 1, "billing": 1, "video": 2, "notify": 3}

# Ends the workers should the demo itself be killed: its pipe then closes, and nothing else would.
GUARD = 'read -r _; for group in "$@"; do kill -TERM "-$group"; done'


class Workers:
    """Starts the example programs; at the end stops them, whatever happened."""

    def __init__(self, examples: Path, database_url: str, screen: Screen) -> None:
        self.examples = examples
        self._environment = os.environ | {"DATABASE_URL": database_url, "SIMPLEWORKFLOW_LOG_LEVEL": "WARNING"}
        self._screen = screen
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._said: dict[str, list[str]] = {}
        self._unshown: OSError | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start all four and wait until each has said so.

        Raises:
            ClickException: one ended, or said nothing.
        """
        wf = [sys.executable, "-m", "simpleworkflow.cli"]
        self._start("basic", [sys.executable, "basic_worker.py"])
        self._start("billing", [sys.executable, "billing_worker.py"])
        self._start("video", [*wf, "worker", "video_processor:worker", "--processes", "2"])
        self._start("notify", [sys.executable, "notification_worker.py"])
        groups = [str(process.pid) for process in self._processes.values()]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", *groups],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while silent := [name for name, count in GREETING_LINES.items() if len(self._said[name]) < count]:
            self.check()
            if time.monotonic() > deadline:
                raise click.ClickException(
                    f"within {START_SECONDS:g} s too little was heard of {', '.join(silent)}"
                )
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raise if a worker has ended, for nobody told it to, or if its lines cannot be shown."""
        if self._unshown is not None:
            raise self._unshown
        for name, process in self._processes.items():
            if process.poll() is not None:
                code = process.returncode
                raise click.ClickException(
                    f"the {name} worker ended with exit code {code}; see its lines above"
                )

    def has_said(self, name: str, line: str) -> bool:
        """Return whether a worker has printed this line."""
        return line in self._said[name]

    def holds(self, name: str, pid: int) -> bool:
        """Return whether ``pid`` is a process below the worker of this name."""
        while pid > 1:
            if pid == self._processes[name].pid:
                return True
            pid = _parent_of(pid)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes.values():
            _end(process, deadline)
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()

    def _start(self, name: str, command: list[str]) -> None:
        # A session of its own: Ctrl-C reaches the demo alone, which then stops the workers in order.
        process = subprocess.Popen(
            command,
            cwd=self.examples,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self._processes[name] = process
        self._said[name] = []
        assert process.stdout is not None
        threading.Thread(target=self._show_lines, args=(name, process.stdout), daemon=True).start()

    def _show_lines(self, name: str, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self._said[name].append(line.rstrip("\n"))
                try:
                    self._screen.worker_line(name, line.rstrip("\n"))
                except OSError as error:  # whoever read our output has gone: for check to tell
                    self._unshown = error
                    return


def _end(process: subprocess.Popen[str], deadline: float) -> None:
    # A second Ctrl-C ends the waiting, not the ending.
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(timeout=max(deadline - time.monotonic(), 0.1))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever is left of it and its children
    process.wait()


def _parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/stat")
    with suppress(FileNotFoundError):
        return int(status.read_text().rpartition(")")[2].split()[1])
    answer = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return int(answer.stdout.strip() or 0)
