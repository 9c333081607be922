"""How soon a run starts again when whoever held it has died or stops, against what promise P7 says.

    make recovery                50 kills for each number of processes
    make recovery QUICK=1        10

Every figure is of a real signal to a real process: from the moment it is sent to the first line of the handler's
next execution.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import psycopg

from simpleworkflow import Client, embedded
from simpleworkflow.migrate import migrate

SCHEMA = "recovery"
WAIT_SECONDS_MAX = 60.0
LEASE_SECONDS = 2.0
POLL_SECONDS = 0.5
GRACE_SECONDS = 0.2
WF_WORKER = [str(Path(sys.executable).with_name("wf")), "worker", "recovery_worker:worker", "--concurrency=4"]


T = TypeVar("T")


class Start(NamedTuple):
    """One execution: of which run, when, and in which process."""

    run_id: str
    token: int
    at: float
    pid: int


class Service:
    """A ``wf worker`` of its own process group."""

    def __init__(self, url: str, folder: Path, *, processes: int = 1, **environment: str) -> None:
        self.processes = processes
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*WF_WORKER, f"--processes={processes}"],
                cwd=Path(__file__).parent,
                env=os.environ | {"DATABASE_URL": url, "STARTS": str(folder / "starts")} | environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def wait_for_starts(self, count: int) -> None:
        """Wait until so many worker processes have started since the service did, and the spare can."""
        _until(lambda: self.log.read_text().count(" started for ") >= count)
        _until(lambda: self.log.read_text().count("imported") >= count + (self.processes == 1))

    def holds(self, pid: int) -> bool:
        """Return whether a process is one of this service."""
        return os.getsid(pid) == self.process.pid

    def kill(self) -> None:
        """Kill every process of it, as the loss of its host would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


class Stage:
    """A schema, a client, and the lines that handlers have left."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.client = Client(url)

    def service(self, **options: str | int) -> Service:
        """Start a service."""
        return Service(self.url, self.folder, **options)  # type: ignore[arg-type]

    def held_run(self) -> Start:
        """Submit a run that its first execution holds; return that."""
        return self.start_of(str(self.client.submit("recovery.run.v1", 1).id), 1)

    def start_of(self, run_id: str, token: int) -> Start:
        """Wait for an execution."""
        return _until(lambda: next((one for one in self.starts() if one[:2] == (run_id, token)), None))

    def starts(self) -> list[Start]:
        """Return all executions so far."""
        lines = [line.split() for line in (self.folder / "starts").read_text().splitlines()]
        return [
            Start(line[0], int(line[1]), float(line[2]), int(line[3])) for line in lines if len(line) == 4
        ]


# ── what is measured ───────────────────────────────────────────────────────────────────────────────


def kill_children(stage: Stage, processes: int, times: int, **environment: str) -> Iterator[float]:
    """SIGKILL to the worker process that holds the run; its supervisor lives."""
    with stage.service(processes=processes, **environment) as service:
        for number in range(times):
            service.wait_for_starts(processes + number)
            held = stage.held_run()
            killed_at = time.monotonic()
            os.kill(held.pid, signal.SIGKILL)
            yield stage.start_of(held.run_id, 2).at - killed_at


def kill_hosts(stage: Stage, times: int) -> Iterator[float]:
    """SIGKILL to all processes of the service that holds the run; another service takes it."""

    def kill(service: Service) -> float:
        service.kill()
        return 0.0

    yield from _end_services(stage, times, kill, LEASE=str(LEASE_SECONDS))


def stop_services(stage: Stage, times: int) -> Iterator[float]:
    """SIGTERM to the service that holds the run for longer than its grace; counted from the grace's end."""

    def stop(service: Service) -> float:
        service.process.terminate()
        return GRACE_SECONDS

    yield from _end_services(stage, times, stop, GRACE=str(GRACE_SECONDS))


def lose_wake_ups(stage: Stage, times: int) -> Iterator[float]:
    """No LISTEN, as behind a transaction pooler: from the submit's commit to the start."""
    with stage.service(POLL=str(POLL_SECONDS), SIMPLEWORKFLOW_POOLER="transaction") as service:
        service.wait_for_starts(1)
        for number in range(times):
            time.sleep(0.1 + POLL_SECONDS * number / times)  # at every moment between two polls
            run_id = str(stage.client.submit("recovery.run.v1", 0).id)
            submitted_at = time.monotonic()
            yield stage.start_of(run_id, 1).at - submitted_at


def _end_services(
    stage: Stage, times: int, end: Callable[[Service], float], **environment: str
) -> Iterator[float]:
    with ExitStack() as stack:

        def start() -> Service:
            service = stack.enter_context(stage.service(**environment))
            service.wait_for_starts(1)
            return service

        services = [start(), start()]
        for _ in range(times):
            held = stage.held_run()
            victim = next(one for one in services if one.holds(held.pid))
            ended_at = time.monotonic()
            allowance = end(victim)
            yield stage.start_of(held.run_id, 2).at - ended_at - allowance
            victim.process.wait(30)
            services[services.index(victim)] = start()


# ── the table ──────────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """Measure, print one table; return 1 if a bound was not held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="for each number of processes")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument(
        "--import-seconds", type=float, nargs="*", default=[0.0], help="a heavy import's time"
    )
    parser.add_argument("--only-children", action="store_true")
    options = parser.parse_args()
    kills, few = options.kills, max(5, options.kills // 5)
    with _stage() as stage:
        measured: list[tuple[str, float, Iterator[float]]] = []
        for heavy in options.import_seconds:
            for count in options.processes:
                name = f"process killed, --processes {count}" + (f", import of {heavy:g} s" if heavy else "")
                measured.append((name, 1.0, kill_children(stage, count, kills, IMPORT_SECONDS=str(heavy))))
        if not options.only_children:
            measured += [
                (f"host gone, lease {LEASE_SECONDS:g} s", LEASE_SECONDS + 1, kill_hosts(stage, few)),
                ("SIGTERM past its grace", 1.0, stop_services(stage, few)),
                (f"no wake-up, poll {POLL_SECONDS:g} s", POLL_SECONDS + 0.25, lose_wake_ups(stage, kills)),
            ]
        print(
            f"{'seconds until the run starts again':46} {'n':>4} {'p50':>6} {'p99':>6} {'max':>6} {'bound':>6}"
        )
        return max([_report(name, bound, sorted(seconds)) for name, bound, seconds in measured])


def _report(name: str, bound: float, seconds: list[float]) -> int:
    p99 = seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))]
    is_held = seconds[-1] <= bound
    print(
        f"{name:46} {len(seconds):4} {statistics.median(seconds):6.2f} {p99:6.2f} {seconds[-1]:6.2f} {bound:6.2f}"
        f"  {'held' if is_held else 'NOT HELD'}",
        flush=True,
    )
    return 0 if is_held else 1


@contextmanager
def _stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="wf-recovery-") as folder:
        Path(folder).chmod(0o755)  # as root, the server runs as another account
        with embedded.start(Path(folder) / "postgres") as server:
            url = f"{server.url}{'&' if '?' in server.url else '?'}schema={SCHEMA}"
            with psycopg.connect(server.url, autocommit=True) as conn:
                migrate(conn, SCHEMA)
            stage = Stage(url, Path(folder))
            (stage.folder / "starts").touch()
            yield stage
            stage.client.close()


def _until(look: Callable[[], T | None]) -> T:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := look()):
        if time.monotonic() > until:
            raise SystemExit(f"recovery: not within {WAIT_SECONDS_MAX:g} s")
        time.sleep(0.005)
    return found


if __name__ == "__main__":
    sys.exit(main())
