"""``wf dev``: database, worker and dashboard in one command; the worker starts anew when its sources change."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from simpleworkflow.cli.session import database_option, open_database
from simpleworkflow.cli.text import safe

LOOK_SECONDS = 0.3
# A handler that does not end within this time gives its run back; a process that does not end at all is killed.
GRACE_SECONDS, KILL_SECONDS = 1.0, 6.0
FILES_MAX = 20_000
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}
_WF = [sys.executable, "-m", "simpleworkflow.cli"]
# Ends the program should we be killed: its pipe then closes, and nothing else would.
_GUARD = 'read -r _; kill -TERM "-$1"'

EPILOG = """\b
Example, with `worker = Worker()` in app/workers.py:
  wf dev app.workers:worker
"""


@click.command(epilog=EPILOG)
@click.argument("target", metavar="MODULE:WORKER")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The dashboard's."
)
@click.option("--server/--no-server", default=True, show_default=True, help="Serve the dashboard too.")
@click.option(
    "--watch",
    "folders",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Where sources are looked for; the current folder, unless given.",
)
@database_option
def dev(*, target: str, port: int, server: bool, folders: tuple[Path, ...]) -> None:
    """Run the Worker named WORKER in MODULE while you write it, until Ctrl-C.

    The database is brought up to date (without DATABASE_URL it is the embedded PostgreSQL of this folder), the
    dashboard is served if the extra [server] is installed, and the worker starts anew whenever a Python file changes. A
    module that cannot be imported is said in one line, and tried again at the next change.
    """
    from simpleworkflow.worker.target import check_target

    check_target(target)
    database = open_database()
    if not database.is_embedded:
        _migrate(database.conninfo, database.schema)
    environment = os.environ | {"DATABASE_URL": database.portable}
    _stop_at_once_when_told()
    with ExitStack() as stack:
        if server and (command := _server_command(port)):
            stack.enter_context(Program(command, environment))
        sources = Sources(folders or (Path.cwd(),))
        _work(lambda: Program([*_WF, "worker", target], environment), sources)


def _work(start: Callable[[], Program], sources: Sources) -> None:
    while True:
        with start() as worker:
            has_ended = False
            while not (changed := sources.changed()):
                if not has_ended and worker.has_ended():
                    has_ended = True
                    _say("the worker has ended; it starts anew when a file changes")
                time.sleep(LOOK_SECONDS)
            _say(f"{safe(changed)} changed; the worker starts anew")


class Sources:
    """The Python files below some folders, and when each was written."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._known = self._look()
        if len(self._known) >= FILES_MAX:
            _say(f"more than {FILES_MAX:,} Python files here, not all are watched; name folders with --watch")

    def changed(self) -> str | None:
        """Return the name of a file that was written, added or removed since the last time."""
        found = self._look()
        different = {path for path, _ in self._known.items() ^ found.items()}
        self._known = found
        return os.path.relpath(min(different)) if different else None

    def _look(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for folder in self._folders:
            for entry in _python_files(folder):
                with suppress(OSError):  # it is gone again
                    status = entry.stat()
                    found[entry.path] = (status.st_mtime_ns, status.st_size)
                if len(found) >= FILES_MAX:
                    return found
        return found


def _python_files(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return  # a virtual environment, whatever it is called
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _LEFT_OUT:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _python_files(entry.path)
        elif entry.name.endswith(".py"):
            yield entry


class Program:
    """A program of ours in a process group of its own; at the end it is stopped, within seconds."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def has_ended(self) -> bool:
        """Return whether it runs no more."""
        return self._process.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGTERM, KILL_SECONDS)):
            if not self.has_ended():
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
        # Also what it may have left behind: the group is its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()


def _server_command(port: int) -> list[str] | None:
    needed = ("starlette", "uvicorn", "msgspec")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        _say(f"no dashboard: {missing[0]} is not installed; pip install 'simpleworkflow[server]' brings it")
        return None
    return [*_WF, "server", "--port", str(port)]


def _migrate(conninfo: str, schema: str) -> None:
    from simpleworkflow.database import connect
    from simpleworkflow.migrate import migrate, read_state

    with connect(conninfo) as conn:
        if read_state(conn, schema).pending:
            applied = migrate(conn, schema)
            _say(f"migrations applied: {len(applied)}")


def _stop_at_once_when_told() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def _say(what: str) -> None:
    click.echo(f"wf dev: {what}", err=True)
