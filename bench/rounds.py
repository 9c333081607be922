"""One round of one system: what is measured, and in which order.

Jobs are recorded while the workers are held by SIGSTOP, idle and warm; a drain is timed from the SIGCONT to the
probe that finds nothing left.  So no system's drain contains its start, its recording or another system's.

Only what is recorded one by one is measured of all systems together: each waits for the disk, which is faster in some
seconds than in others, so they take turns many times a second.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from databases import Database, fresh_database
from programs import Program, Starts, Workers
from systems import NotMeasuredError, System

START_SECONDS_MAX = 30
IDLE_SECONDS = 0.3  # after the last job, for what a worker still has to write
FIRST_SUBMITS = 40  # tell how many the timed ones are
TURNS = 20

NOTHING = "select 0"

Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    jobs_max: int = 60_000
    jobs_min: int = 500
    drain_seconds: float = 1.5  # the number of jobs is chosen so that a drain takes about as long
    drain_seconds_max: float = 60
    submits_max: int = 2000
    submit_seconds: float = 1.0
    latencies: int = 200
    latency_seconds: float = 15.0
    begin_seconds_max: float = 7200  # what has not begun by then is left out


@dataclass
class Bench:
    """One system on one server, and how many jobs its drains take."""

    system: System
    command: list[str]
    url: str
    effort: Effort
    jobs: int = 0

    @contextmanager
    def producer(self) -> Iterator[Program]:
        """Yield a producer on a database of its own, which has recorded something."""
        with fresh_database(self.url) as database:
            self._setup(database)
            with self._producer(database) as producer:
                producer.ask("submit 20")  # the first ones connect, prepare and compile
                yield producer

    def round(self) -> Figures:
        """Measure once all but what is recorded one by one, return the samples.

        Raises:
            NotMeasuredError: a program failed.
        """
        found: Figures = {}
        with fresh_database(self.url) as database:
            self._setup(database)
            with self._producer(database) as producer:
                if not self.system.busy:
                    producer.ask(f"bulk {self.effort.jobs_min}")
                    found["bulk"] = [self.effort.jobs_max / producer.ask(f"bulk {self.effort.jobs_max}")]
                else:
                    self._one_worker(database, producer, found)
                    with self._workers(database, producer, 2) as (workers, _):
                        self._drain(database, producer, workers, self.jobs, found, "drain_two")
        return found

    def _one_worker(self, database: Database, producer: Program, found: Figures) -> None:
        with self._workers(database, producer, 1) as (workers, starts):
            if self.system.is_timed:
                found["latency"] = list(self._latencies(database, producer, starts))
            if self.jobs:
                self._drain(database, producer, workers, self.jobs, {}, "")
            else:
                self.jobs = self._choose_jobs(database, producer, workers)
            found["memory_first"] = [workers.memory_mb()]
            self._drain(database, producer, workers, self.jobs, found, "drain_one")
            found["memory_second"] = [workers.memory_mb()]

    # ── steps ──────────────────────────────────────────────────────────────────────────────────────

    def _setup(self, database: Database) -> None:
        program = Program([*self.command, "setup", database.url])
        try:
            program.run()
        finally:
            program.stop()
        database.checkpoint()

    def _latencies(self, database: Database, producer: Program, starts: Starts) -> Iterator[float]:
        deadline = time.monotonic() + self.effort.latency_seconds
        for tag in range(1, self.effort.latencies + 1):
            submitted_at = producer.ask(f"one {tag}")
            yield 1000 * (starts.wait_for(tag, 10) - submitted_at)
            time.sleep(random.uniform(0.005, 0.03))  # into every phase of a worker that polls
            if time.monotonic() > deadline:
                break
        database.wait_until_idle(self.system.busy, self.effort.drain_seconds_max)

    def _choose_jobs(self, database: Database, producer: Program, workers: Workers) -> int:
        jobs = min(self.effort.jobs_min, self.effort.jobs_max)  # tells how many the timed drains take
        while True:
            seconds = self._drain(database, producer, workers, jobs, {}, "")
            wanted = min(self.effort.jobs_max, int(jobs * self.effort.drain_seconds / seconds))
            if seconds > self.effort.drain_seconds / 2 or jobs >= self.effort.jobs_max:
                return max(min(self.effort.jobs_min, self.effort.jobs_max), wanted)
            jobs = max(jobs + 1, min(jobs * 8, wanted))  # a short drain tells of waking up, not of the rate

    def _drain(
        self, database: Database, producer: Program, workers: Workers, jobs: int, found: Figures, name: str
    ) -> float:
        time.sleep(IDLE_SECONDS)
        workers.hold()
        database.checkpoint()
        done, log = database.one(self.system.done or NOTHING), database.wal_bytes()
        bulk = producer.ask(f"bulk {jobs}")
        if database.one(self.system.done or NOTHING) != done:
            raise NotMeasuredError("its workers went on while they were held")
        server, worker = database.server_cpu_seconds(), workers.cpu_seconds()
        released_at = time.monotonic()
        workers.release()
        try:
            ended_at = database.wait_until_idle(self.system.busy, self.effort.drain_seconds_max)
        finally:
            workers.check()
        worker, server_after = workers.cpu_seconds() - worker, database.server_cpu_seconds()
        self._verify(database, done + jobs)
        found.setdefault("bulk", []).append(jobs / bulk)
        found[name] = [jobs / (ended_at - released_at)]
        if name == "drain_one":
            found["wal"] = [(database.wal_bytes() - log) / jobs]
            found["cpu_worker"] = [worker / jobs * 10_000]
            if server is not None and server_after is not None:
                found["cpu_server"] = [(server_after - server) / jobs * 10_000]
        return ended_at - released_at

    def _verify(self, database: Database, expected: int) -> None:
        if not self.system.done:
            return
        done = database.one(self.system.done)
        deadline = time.monotonic() + 2
        while done < expected and time.monotonic() < deadline:  # some write their log a moment later
            time.sleep(0.05)
            done = database.one(self.system.done)
        if done != expected:
            raise NotMeasuredError(f"expected {expected} jobs done by its own count, got {done}")

    # ── programs ───────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _producer(self, database: Database) -> Iterator[Program]:
        producer = Program([*self.command, "producer", database.url])
        try:
            yield producer
        finally:
            producer.stop()

    @contextmanager
    def _workers(
        self, database: Database, producer: Program, processes: int
    ) -> Iterator[tuple[Workers, Starts]]:
        """Yield workers each of which has executed something, with nothing left to do."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wf-bench-starts-"))
            starts = Starts(Path(folder) / "starts")
            stack.callback(starts.close)
            environment = {"BENCH_STARTS": str(starts.path), "BENCH_PROCESSES": str(processes)}
            command = [*self.command, "worker", database.url]
            count = 1 if self.system.starts_processes else processes
            programs = []
            for _ in range(count):
                programs.append(Program(command, **environment))
                stack.callback(programs[-1].stop)
            workers = Workers(programs)
            stack.callback(workers.stop)
            self._warm_up(database, producer, workers, starts, processes)
            yield workers, starts

    def _warm_up(
        self, database: Database, producer: Program, workers: Workers, starts: Starts, processes: int
    ) -> None:
        deadline, count = time.monotonic() + START_SECONDS_MAX, 100 * processes
        while len(starts.pids) < processes:
            workers.check()
            if time.monotonic() > deadline:
                raise NotMeasuredError(f"{len(starts.pids)} of {processes} workers executed something")
            if not database.one(self.system.busy):
                producer.ask(f"tagged {count}")
                count = min(2 * count, 10_000)  # until one worker alone does not take them all
            time.sleep(0.1)
            list(starts.new())
        database.wait_until_idle(self.system.busy, self.effort.drain_seconds_max)
        list(starts.new())


def submit_in_turns(benches: Sequence[Bench], failed: dict[str, str]) -> dict[str, float]:
    """Return how many jobs a second each records one by one; ``failed`` is told of those that cannot."""
    with ExitStack() as stack:
        producers: dict[str, Program] = {}
        turns: dict[str, int] = {}  # how many a turn records
        for bench in benches:
            name, effort = bench.system.name, bench.effort
            with _telling(failed, name):
                producer = stack.enter_context(bench.producer())
                rate = FIRST_SUBMITS / producer.ask(f"submit {FIRST_SUBMITS}")
                count = min(effort.submits_max, int(rate * effort.submit_seconds))
                producers[name], turns[name] = producer, max(1, count // TURNS)
        seconds = dict.fromkeys(producers, 0.0)
        names = list(producers)
        for turn in range(TURNS):
            for name in names if turn % 2 == 0 else reversed(names):
                if name not in failed:
                    with _telling(failed, name):
                        seconds[name] += producers[name].ask(f"submit {turns[name]}")
        return {name: TURNS * turns[name] / seconds[name] for name in names if name not in failed}


@contextmanager
def _telling(failed: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except (NotMeasuredError, psycopg.Error) as error:
        failed[name] = str(error).splitlines()[0]
        print(f"  {name}: not measured: {failed[name]}", file=sys.stderr, flush=True)
