"""A PostgreSQL of a test's own: stopped, killed, promoted, filled up, and set to another time, as a machine would be.

It is started from the same programs and as the same account as the embedded server, without its keeper and its locks:
here the test decides when it dies.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from simpleworkflow.embedded.binaries import choose_binaries
from simpleworkflow.embedded.home import Home, settle
from simpleworkflow.embedded.readable import readable_by_server
from waits import until
from worker.stage import children_of, is_running

# Below the range of outgoing connections: while a server is down, nobody else takes its port.
PORTS = range(20_000, 32_000)
READY_SECONDS = 20
FAKETIME = "libfaketime.so.1"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # these tests crash processes, never the machine
    "shared_buffers": "16MB",
    "max_connections": "60",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "log_min_messages": "fatal",
}


class OwnServer:
    """One PostgreSQL; ``url`` and ``url_of`` are what the fixture ``server`` has.

    ``environment`` is added to its own; ``settings`` to ``SETTINGS``, from the next start on.
    """

    def __init__(
        self,
        home: Home,
        programs: Path,
        *,
        data: Path | None = None,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.programs = programs
        self.data = data or home.data
        self.port = free_port()
        self.settings = SETTINGS | dict(settings or {})
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the application connects."""
        return f"postgresql://workflow@127.0.0.1:{self.port}/workflow?sslmode=disable"

    @property
    def superuser_url(self) -> str:
        """Where a superuser does."""
        return self.url.replace("workflow@", "postgres@")

    def url_of(self, schema: str, *, superuser: bool = False) -> str:
        """Return the URL with ``?schema=``."""
        return f"{self.superuser_url if superuser else self.url}&schema={schema}"

    # ── its life ───────────────────────────────────────────────────────────────────────────────────

    def launch(self) -> None:
        """Start it without waiting until it can be used."""
        options = self.home.process_options()
        options["env"] = options["env"] | self.environment
        command = [str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        with self.home.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options
            )

    def start(self) -> None:
        """Start it; return once it takes connections."""
        end = time.monotonic() + READY_SECONDS
        self.launch()
        while not self.answers():
            if self._process().poll() is not None:
                if "shared memory" not in self.log:
                    raise AssertionError(f"PostgreSQL ended: {self.log[-2000:]}")
                self.launch()  # a process of the one before still lived
            assert time.monotonic() < end, self.log[-2000:]
            time.sleep(0.02)

    def answers(self) -> bool:
        """Return whether it takes connections now."""
        try:
            with psycopg.connect(self.superuser_url, connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def is_running_after(self, *, seconds: float) -> bool:
        """Return whether it still runs, after waiting so long for its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process().wait(seconds)
        return self._process().poll() is None

    def stop(self, how: str = "fast") -> None:
        """Stop it: ``fast`` ends all sessions and writes a checkpoint, ``immediate`` crashes, ``smart`` waits."""
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[how]
        self._process().send_signal(number)
        self._process().wait(READY_SECONDS)

    def kill(self) -> None:
        """Kill its first process with SIGKILL; the others notice and end."""
        backends = children_of(self._process().pid)
        self._process().kill()
        self._process().wait(READY_SECONDS)
        _signal(backends, signal.SIGCONT)  # a stopped one would not notice
        until(lambda: not any(is_running(one) for one in backends), "the end of a killed server's processes")

    def close(self) -> None:
        """Leave nothing of it running."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    @property
    def log(self) -> str:
        """What it has said."""
        return self.home.log.read_text(errors="replace") if self.home.log.exists() else ""

    def _process(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    # ── its standby ────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def standby(self) -> Iterator[OwnServer]:
        """Give it a standby that streams from it and takes read-only connections."""
        with a_home() as home:
            self.run_client("pg_basebackup", "-D", str(home.data), "-R", "-c", "fast")
            if os.geteuid() == 0:
                subprocess.run(
                    ["chown", "-R", f"{home.uid}:{home.gid}", str(home.data)], check=True, timeout=60
                )
            standby = OwnServer(home, self.programs, settings=self.settings)
            try:
                standby.start()
                with self.superuser() as conn:
                    until(
                        lambda: bool(
                            conn.execute("select from pg_stat_replication where state = 'streaming'").rowcount
                        ),
                        "a streaming standby",
                    )
                yield standby
            finally:
                standby.close()

    def stall(self) -> None:
        """Stop all its processes where they are: connections are accepted, and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo ``stall``."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        # The first process before the others: once it is stopped it starts none.
        self._process().send_signal(number)
        _signal(children_of(self._process().pid), number)

    def promote(self) -> None:
        """Make a standby a primary; return when it is one."""
        with self.superuser() as conn:
            conn.execute("select pg_promote(true, 20)")

    # ── what superusers do ─────────────────────────────────────────────────────────────────────────

    @contextmanager
    def superuser(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a superuser's autocommit connection."""
        with psycopg.connect(self.superuser_url, autocommit=True, connect_timeout=5) as conn:
            yield conn

    def execute(self, statement: str) -> None:
        """Execute one statement as a superuser."""
        with self.superuser() as conn:
            conn.execute(statement.encode())

    def run_client(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's client programs as a superuser; skip where it is not installed."""
        path = choose_binaries().folder / program
        if not path.is_file():
            pytest.skip(f"{program} is not among the PostgreSQL programs in {path.parent}")
        command = [str(path), "-d", self.superuser_url, *arguments]
        subprocess.run(command, check=True, timeout=60, capture_output=True)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, number)


# ── making one ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def own_server(
    *,
    data: Path | None = None,
    log_apart: bool = False,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[OwnServer]:
    """Start a server with the role ``workflow`` and its database; nothing of it is left at the end.

    ``data`` is a folder that does not exist yet, for its data; ``log_apart``: the write-ahead log stays elsewhere.
    """
    with a_home() as home:
        programs, origin = _template()
        place = data or home.data
        subprocess.run(["cp", "-a", str(origin), str(place)], check=True, timeout=60)
        if log_apart:
            subprocess.run(
                ["cp", "-a", str(place / "pg_wal"), str(home.folder / "wal")], check=True, timeout=60
            )
            shutil.rmtree(place / "pg_wal")
            (place / "pg_wal").symlink_to(home.folder / "wal")
        server = OwnServer(home, programs, data=place, settings=settings, environment=environment)
        try:
            server.start()
            yield server
        finally:
            server.close()


@contextmanager
def a_home() -> Iterator[Home]:
    """Make a folder that the server's account can live in; it is gone at the end."""
    # Not pytest's folder: as root the server's account could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="wf-server-"))
    folder.chmod(0o755)
    try:
        home = settle(folder / "home")
        if os.geteuid() == 0:
            os.chown(home.folder, home.uid, home.gid)
        yield home
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _template() -> tuple[Path, Path]:
    """Make the data that all these servers begin with, once for this process."""
    keeper = a_home()
    home = keeper.__enter__()
    _kept.append(keeper)
    programs = readable_by_server(home, choose_binaries()).folder
    # Small files of write-ahead log, so that a disk of 64 MB has room for it.
    initdb = [
        programs / "initdb",
        "-D",
        home.data,
        "-U",
        "postgres",
        "--auth=trust",
        "--no-sync",
        "--wal-segsize=1",
    ]
    subprocess.run(
        [*map(str, initdb), "--encoding=UTF8", "--locale=C"],
        **home.process_options(),
        check=True,
        timeout=120,
        capture_output=True,
    )
    with (home.data / "pg_hba.conf").open("a") as rules:
        rules.write("host replication postgres 127.0.0.1/32 trust\n")
    server = OwnServer(home, programs, settings={"min_wal_size": "2MB"})
    _provision(server)
    return programs, home.data


def _provision(server: OwnServer) -> None:
    place = server.superuser_url.replace("/workflow?", "/postgres?")
    server.launch()
    try:
        until(lambda: _execute(place, "create role workflow login"), "a server that takes connections")
        assert _execute(place, "create database workflow owner workflow")
        server.stop()
    finally:
        server.close()


def _execute(url: str, statement: str) -> bool:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
            conn.execute(statement.encode())
        return True
    except psycopg.OperationalError:
        return False


_kept: list[Any] = []


def remove_template() -> None:
    """Remove what ``own_server`` copied from."""
    while _kept:
        _kept.pop().__exit__(None, None, None)
    _template.cache_clear()


# ── the machine around it ──────────────────────────────────────────────────────────────────────────


def free_port() -> int:
    """Return a port that nobody listens on now."""
    for _ in range(200):
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port on 127.0.0.1")


@contextmanager
def small_disk(megabytes: int = 64) -> Iterator[Path]:
    """Mount a file system of memory that is full after so many megabytes; skip where that is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="wf-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "none", str(folder)]
    try:
        mounted = shutil.which("mount") and subprocess.run(
            mount, capture_output=True, check=False, timeout=10
        )
        if not mounted or mounted.returncode:
            pytest.skip("a small disk cannot be mounted here: it needs root and the right to mount")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)
    finally:
        folder.rmdir()


class Clock:
    """The time that programs started with ``environment`` see: the real one plus an offset that may change."""

    def __init__(self, folder: Path) -> None:
        library = faketime_library()
        if library is None:
            pytest.skip("libfaketime is not installed: apt-get install faketime")
        self._file = folder / "clock"
        self._file.touch(0o644)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as a clock that is set does not
            "FAKETIME_DISABLE_SHM": "1",  # what it shares outlives a killed process, and stops one with its pid
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Put the clock so far ahead of the real one, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.chmod(0o644)
        new.replace(self._file)


def faketime_library() -> Path | None:
    """Return what fakes the clock of a program that loads it first, where it is installed."""
    found = sorted(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"))
    return found[0] if found else None
