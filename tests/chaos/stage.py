"""The phases of a chaos run: load, faults, heal, drain, and what is left behind."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep, time

import psycopg

from chaos import parties
from chaos.faults import STOP_SECONDS_MAX, Field, strike
from chaos.parties import Party
from chaos.plan import Plan
from chaos.postgres import OwnServer

PRODUCERS = {"sync": 0.35, "sql": 0.35, "async": 0.3}
START_SECONDS = 30
STARTING_SECONDS = 10.0
WARM_LOOK_SECONDS = 0.25
WARM_SECONDS = 5.0
HEALED_SECONDS = 3.0
DRAIN_SECONDS = 30.0
# What has piled up is drained at this rate at least, also on a machine that others use: it takes so much longer.
DRAIN_PER_SECOND = 50
# With more than this many programs waiting for each core, a lease may be lost to the machine alone.
LOAD_MAX = 4.0
HEAL_SECONDS = 60.0
PRODUCER_STOP_SECONDS = 15.0
# A handler may keep what it was given, and allocators keep more than that.
MEGABYTES_MORE_MAX = 100
DESCRIPTORS_MORE_MAX = 20
# What Python's sleep asks for, its clock_nanosleep refuses when the clock has just been shifted.
OF_LIBFAKETIME = "OSError: [Errno 22] Invalid argument"


@dataclass
class Played:
    """What a run left for the audit, beside the tables and the ledgers."""

    plan: Plan
    folder: Path
    rate: float
    ground: Field
    warm_at: float = 0.0
    faults_at: float = 0.0
    healed_at: float = 0.0
    drain_seconds: float | None = None
    load_max: float = 0.0
    problems: list[str] = field(default_factory=list)

    def look_at_machine(self) -> None:
        """Note how many programs wait for each core."""
        self.load_max = max(self.load_max, round(os.getloadavg()[0] / (os.cpu_count() or 1), 1))

    def windows(self) -> list[tuple[float, float]]:
        """Return the times in which leases may be lost: faults, and starts, while nobody extends any yet."""
        if self.load_max > LOAD_MAX:
            return [(0.0, math.inf)]
        struck = [(began, ended) for began, _, ended, _ in self.ground.ends]
        return struck + [
            (at, at + STARTING_SECONDS) for party in self.ground.workers for at in party.started_at
        ]


@contextmanager
def played(plan: Plan, folder: Path, rate: float) -> Iterator[Played]:
    """Play a plan; yield when everything has ended but the server, which the audit still reads."""
    (folder / "plan.json").write_text(plan.to_json())
    server = OwnServer()
    try:
        ground = _ground(server, folder, rate, plan)
        run = Played(plan, folder, rate, ground, problems=ground.problems)
        try:
            _play(run)
        finally:
            _leave_nothing(run)
        yield run
    finally:
        (folder / "log-server").write_text(server.log)
        server.close()


def _ground(server: OwnServer, folder: Path, rate: float, plan: Plan) -> Field:
    seed = str(plan.seed)
    services = [
        parties.service("service-1", server.url, folder, 3),
        parties.clocked_service("service-2", server.url, folder, 2),
    ]
    producers = [
        parties.program(kind, server.url, folder, "producers", kind, str(rate * share), seed)
        for kind, share in PRODUCERS.items()
    ]
    return Field(
        folder=folder,
        server=server,
        services=services,
        program=parties.program("program", server.url, folder, "app"),
        producers=producers,
        operator=parties.program("operator", server.url, folder, "person", seed),
    )


def _play(run: Played) -> None:
    ground = run.ground
    for party in ground.workers:
        party.start()
    _await_start(ground)
    for party in [*ground.producers, ground.operator]:
        party.start()
    run.warm_at = time()
    before = _warm_footprints(ground)
    run.faults_at = time()
    _strike_all(run)
    run.healed_at = time()
    healed = monotonic()
    sleep(HEALED_SECONDS)
    for party in [*ground.producers, ground.operator]:
        if party.end(PRODUCER_STOP_SECONDS) is None:
            run.problems.append(
                f"{party.name} did not end within {PRODUCER_STOP_SECONDS} s after the healing"
            )
    _drain(run, healed + DRAIN_SECONDS)
    run.drain_seconds = monotonic() - healed
    run.problems += _left_in_sessions(ground) + _grown(before, _footprints(ground))


def _await_start(ground: Field) -> None:
    until = monotonic() + START_SECONDS
    while sum(party.log.count(" started for ") for party in ground.workers) < 6:
        assert monotonic() < until, "\n".join(party.log for party in ground.workers)
        sleep(0.05)


def _strike_all(run: Played) -> None:
    began, threads = monotonic(), []
    for fault in run.plan.faults:
        sleep(max(0.0, began + fault.at - monotonic()))
        thread = threading.Thread(target=strike, args=(run.ground, fault), name=str(fault), daemon=True)
        thread.start()
        threads.append(thread)
        run.look_at_machine()
    sleep(max(0.0, began + run.plan.seconds - monotonic()))
    run.ground.healing.set()
    until = monotonic() + HEAL_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))
        if thread.is_alive():
            run.problems.append(f"a fault did not heal within {HEAL_SECONDS} s: {thread.name}")


def _drain(run: Played, until: float) -> None:
    unfinished = "from workflow_run where status in ('pending', 'leased', 'waiting')"
    with run.ground.server.connect() as conn:
        (left,) = conn.execute(f"select count(*) {unfinished}".encode()).fetchall()[0]
        until += left / DRAIN_PER_SECOND
        while left and monotonic() < until:
            sleep(0.1)
            (left,) = conn.execute(f"select count(*) {unfinished}".encode()).fetchall()[0]
        run.look_at_machine()
        if left:
            rows = conn.execute(f"select id::text, status {unfinished} limit 10".encode()).fetchall()
            run.problems.append(
                f"{left} runs are not drained in time, load {run.load_max} on each core: {rows}"
            )


# ── what is left ───────────────────────────────────────────────────────────────────────────────────


def _left_in_sessions(ground: Field) -> list[str]:
    """Return the sessions that sit in a transaction although nothing is to do."""
    with ground.server.connect(is_superuser=True) as conn:
        rows = conn.execute(
            "select pid, state, left(query, 80) from pg_stat_activity where usename = 'workflow'"
            " and state like 'idle in transaction%' and state_change < clock_timestamp() - interval '1 second'"
        ).fetchall()
    return [f"a session is left in a transaction: {row}" for row in rows]


def _leave_nothing(run: Played) -> None:
    """End all programs; whatever is then still there is a problem."""
    ground = run.ground
    ground.healing.set()
    for party in [*ground.producers, ground.operator]:
        party.end(PRODUCER_STOP_SECONDS)
    codes = _end_together(ground.workers)
    for party in ground.parties:
        party.proxy.close()
    run.problems += [f"{name} ended with {code} at SIGTERM" for name, code in codes.items() if code != 0]
    until = monotonic() + 3
    while (orphans := parties.marked_pids(ground.folder)) and monotonic() < until:
        sleep(0.05)
    for pid in orphans:
        run.problems.append(f"an orphan is left: {pid} {parties.command_of(pid)!r}")
    parties.kill_all(orphans)
    with suppress(psycopg.OperationalError), ground.server.connect(is_superuser=True) as conn:
        rows = conn.execute(
            "select activity.pid, state, mode, left(query, 80) from pg_stat_activity as activity"
            " left join pg_locks as held on held.pid = activity.pid where usename = 'workflow'"
        ).fetchall()
        run.problems += [f"a session is left: {row}" for row in rows]


def _end_together(those: Sequence[Party]) -> dict[str, int | None]:
    codes: dict[str, int | None] = {}
    threads = [
        threading.Thread(target=lambda one=one: codes.update({one.name: one.end(STOP_SECONDS_MAX)}))
        for one in those
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def _footprints(ground: Field) -> dict[str, list[tuple[int, int, int]]]:
    """Return of each role its processes: pid, megabytes, descriptors."""
    pids = {
        "supervisor": [party.pid for party in ground.services],
        "worker process": [pid for party in ground.services for pid in party.pids("child")],
        "program": [ground.program.pid],
        "heart": ground.program.pids("heart"),
    }
    return {
        role: [(pid, *print_) for pid in those if (print_ := parties.footprint(pid))]
        for role, those in pids.items()
    }


def _warm_footprints(ground: Field) -> dict[str, list[tuple[int, int, int]]]:
    """Return all footprints under load while nothing strikes yet; at one moment a process may just have crashed."""
    seen, until = _footprints(ground), monotonic() + WARM_SECONDS
    while monotonic() < until:
        sleep(WARM_LOOK_SECONDS)
        for role, those in _footprints(ground).items():
            seen[role] += those
    return seen


def _grown(
    before: dict[str, list[tuple[int, int, int]]], after: dict[str, list[tuple[int, int, int]]]
) -> list[str]:
    """Return the processes that need far more than those of their role did under load at the start."""
    problems = []
    for role, those in after.items():
        megabytes = max((one[1] for one in before[role]), default=0) + MEGABYTES_MORE_MAX
        descriptors = max((one[2] for one in before[role]), default=0) + DESCRIPTORS_MORE_MAX
        problems += [
            f"{role} {pid} has {mb} MB (at most {megabytes}), {fds} descriptors (at most {descriptors})"
            for pid, mb, fds in those
            if mb > megabytes or fds > descriptors
        ]
    return problems


def log_problems(ground: Field) -> list[str]:
    """Return what may stand in no log: tracebacks, secrets, and an outage told twice."""
    problems = []
    for party in ground.parties:
        text = party.log
        _, *tracebacks = text.split("Traceback (most recent call last):")
        problems += [
            f"{party.name} has a traceback: ...{traceback[:3000]}"
            for traceback in tracebacks
            if not (party.clock and OF_LIBFAKETIME in traceback)
        ]
        problems += [f"{party.name} says a secret" for secret in ground.server.secrets if secret in text]
        problems += _told_twice(party)
    return problems


def _told_twice(party: Party) -> list[str]:
    away: set[str] = set()
    problems = []
    for line in party.log.splitlines():
        if found := re.search(r"\[(\d+)\]: the database is (away|back)", line):
            pid, word = found.groups()
            if word == "away" and pid in away:
                problems.append(f"{party.name}: an outage is told twice: {line[:200]}")
            (away.add if word == "away" else away.discard)(pid)
    return problems
