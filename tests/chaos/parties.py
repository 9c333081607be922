"""The programs of a chaos run: started as a service manager would, killed, stopped, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep, time

from faults.proxy import Proxy
from worker.stage import children_of, is_running

TESTS = Path(__file__).resolve().parents[1]
RESTART_SECONDS = 0.2
MARK = "CHAOS_FOLDER"


class Party:
    """One program, its line to the server, and what it is started with; it is started again when it ends."""

    def __init__(self, name: str, command: Sequence[str], url: str, folder: Path, **environment: str) -> None:
        self.name = name
        self.proxy = Proxy(url)
        self.log_path = folder / f"log-{name}"
        self.exits: list[int] = []
        self.started_at: list[float] = []
        self.clock: Path | None = (
            None  # the file that libfaketime reads, where the party has a clock of its own
        )
        # Held by the fault that stops or restarts it: another would meet what is no service any more.
        self.busy = threading.Lock()
        self.line_busy = threading.Lock()
        self._command = list(command)
        self._environment = os.environ | {
            "DATABASE_URL": self.proxy.url,
            MARK: str(folder),
            "PYTHONPATH": str(TESTS),
            "SIMPLEWORKFLOW_LOG_LEVEL": "INFO",
            **environment,
        }
        self._is_wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"keeper-{name}", daemon=True)

    @property
    def pid(self) -> int:
        """The process id of its main process; 0 while there is none."""
        return 0 if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def log(self) -> str:
        """All that it has said, in all its lives."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> None:
        """Start it and keep it."""
        self._is_wanted = True
        self._launch()
        self._keeper.start()

    def pids(self, role: str = "") -> list[int]:
        """Return its living processes below the main one; ``role``: only those of the package with this role."""
        children = children_of(self.pid) if self.pid else []
        return [pid for pid in children if not role or f"simpleworkflow.worker\0{role}" in command_of(pid)]

    def kill(self) -> None:
        """Kill the main process alone; the keeper starts another."""
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)

    def restart(self, seconds: float) -> float | None:
        """Ask it to end and let the keeper start another; return how long the end took, None if it did not."""
        process, began = self._process, monotonic()
        if process is None or process.poll() is not None:
            return 0.0
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
        return monotonic() - began

    def end(self, seconds: float) -> int | None:
        """Ask it to end for good; return its exit code, or None if it had to be killed."""
        self._is_wanted = False
        process = self._process
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
            return None

    def set_clock(self, offset_seconds: int) -> None:
        """Shift the clock that its processes see."""
        assert self.clock is not None
        self.clock.with_suffix(".new").write_text(f"{offset_seconds:+d}\n")
        self.clock.with_suffix(".new").rename(self.clock)

    def _launch(self) -> None:
        self.started_at.append(time())
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=TESTS,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while self._is_wanted:
            assert self._process is not None
            with suppress(subprocess.TimeoutExpired):
                self.exits.append(self._process.wait(0.1))
                sleep(RESTART_SECONDS)
                if self._is_wanted:
                    self._launch()


def command_of(pid: int) -> str:
    """Return the command line of a process, its words separated by NUL; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def marked_pids(folder: Path) -> list[int]:
    """Return all living processes that were started for the chaos of this folder, orphans too."""
    mark = f"{MARK}={folder}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes() and is_running(int(entry.name)):
                    found.append(int(entry.name))
    return sorted(found)


def footprint(pid: int) -> tuple[int, int] | None:
    """Return how much memory a process has (MB), and how many descriptors; None when it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") // 2**20, len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


def clocked_service(name: str, url: str, folder: Path, processes: int) -> Party:
    """Return a service whose clock can be shifted, where libfaketime is installed."""
    if not FAKETIME.exists():
        return service(name, url, folder, processes)
    clock = folder / f"clock-{name}"
    party = service(
        name,
        url,
        folder,
        processes,
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        FAKETIME_DISABLE_SHM="1",
    )
    party.clock = clock
    party.set_clock(0)
    return party


def service(name: str, url: str, folder: Path, processes: int, **environment: str) -> Party:
    """Return a worker service of several processes under a supervisor."""
    wf = str(Path(sys.executable).with_name("wf"))
    command = [wf, "worker", "chaos.app:worker", "--processes", str(processes)]
    return Party(name, command, url, folder, **environment)


def program(name: str, url: str, folder: Path, module: str, *arguments: str) -> Party:
    """Return a program of this folder."""
    return Party(name, [sys.executable, "-m", f"chaos.{module}", *arguments], url, folder)


def kill_all(pids: Sequence[int]) -> None:
    """Kill what should not be there any more."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
