"""What the tests of ``wf`` share: the program, and what a command came to."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

WF = str(Path(sys.executable).parent / "wf")


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document that it printed."""
        return json.loads(self.out)


class Spoken:
    """A program that runs, and the lines it has printed so far; nothing of it is left at the end."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command, env=env, cwd=cwd, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, line: str, timeout: float = 30) -> None:
        """Wait until a line that contains ``line`` has been printed."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(line in one for one in self.lines), timeout), self.lines

    def end(self, number: int, timeout: float = 30) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def processes_with(text: str) -> list[int]:
    """Return the processes, other than this one, that have ``text`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and text.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is another user's
    return found


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def wait_for_end(pids: Sequence[int], timeout: float = 20) -> None:
    """Wait until none of these processes lives."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], timeout)
        os.close(descriptor)
        assert ended, command_line(pid)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without a database, colours and a terminal; what is set in it reaches ``wf``."""
    for name in list(os.environ):
        if name.startswith(("PG", "SIMPLEWORKFLOW_", "WF_")) or name in (
            "DATABASE_URL",
            "NO_COLOR",
            "COLUMNS",
        ):
            monkeypatch.delenv(name)
    return dict(os.environ)


@pytest.fixture
def program(environment: dict[str, str]) -> Callable[..., Answer]:
    """Run the real program; its variables are the keywords in capitals."""

    def run(*arguments: str, stdin: bytes = b"", cwd: Path | None = None, **variables: str) -> Answer:
        ended = subprocess.run(
            [WF, *arguments],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=environment | variables,
            timeout=60,
            check=False,
        )
        return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run
