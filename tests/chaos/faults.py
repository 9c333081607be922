"""What each kind of fault does, and how it heals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time

import psycopg

from chaos import lines
from chaos.parties import Party
from chaos.plan import Fault
from chaos.postgres import OwnServer
from chaos.tables import keep_rows, read_rows
from simpleworkflow.dburl import DEFAULT_SCHEMA
from simpleworkflow.migrate import migrate

GRACE_SECONDS = 4
# P: within grace + 5 s whatever hangs; the rest is for a machine with two cores.
STOP_SECONDS_MAX = GRACE_SECONDS + 5 + 3
TYPES = ("chaos.short.v1", "chaos.thread.v1", "chaos.retry.v1", "chaos.some.v1")


@dataclass
class Field:
    """Everything that can be hit.  ``problems``: what a fault itself found to be wrong."""

    folder: Path
    server: OwnServer
    services: Sequence[Party]
    program: Party
    producers: Sequence[Party]
    operator: Party
    healing: threading.Event = field(default_factory=threading.Event)
    problems: list[str] = field(default_factory=list)
    ends: list[tuple[float, Fault, float, str]] = field(default_factory=list)

    @property
    def workers(self) -> list[Party]:
        """The programs that execute runs."""
        return [*self.services, self.program]

    @property
    def parties(self) -> list[Party]:
        """All programs."""
        return [*self.workers, *self.producers, self.operator]


def strike(ground: Field, fault: Fault) -> None:
    """Do what the fault says, wait as long as it lasts, and heal it; note what came of it."""
    began = time()
    try:
        said = KINDS[fault.kind](ground, fault) or "struck"
    except Missed as reason:
        said = f"missed: {reason}"
    except (psycopg.Error, OSError) as error:
        # Another fault came between: the server is away, the process has gone.
        said = f"missed: {' '.join(str(error).split())[:120]}"
    except BaseException as error:
        ground.problems.append(f"the fault {fault} itself failed: {error!r}")
        raise
    ground.ends.append((began, fault, time(), said))


class Missed(Exception):
    """There was nobody to hit."""


def _one(those: Sequence[int] | Sequence[Party], fault: Fault, whom: str) -> int | Party:
    if not those:
        raise Missed(f"no {whom} is there")
    return those[fault.target % len(those)]


def _party(those: Sequence[Party], fault: Fault) -> Party:
    return those[fault.target % len(those)]


@contextmanager
def _alone_with(party: Party) -> Iterator[None]:
    """Keep other faults from a program that is stopped or restarted now."""
    if not party.busy.acquire(blocking=False):
        raise Missed(f"{party.name} is under another fault")
    try:
        yield
    finally:
        party.busy.release()


# ── processes ──────────────────────────────────────────────────────────────────────────────────────


def _kill(pid: object) -> None:
    assert isinstance(pid, int)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_worker_process(ground: Field, fault: Fault) -> None:
    pids = [pid for party in ground.services for pid in party.pids("child")]
    _kill(_one(pids, fault, "worker process"))


def _kill_supervisor(ground: Field, fault: Fault) -> None:
    _party(ground.services, fault).kill()


def _kill_program(ground: Field, fault: Fault) -> None:
    ground.program.kill()


def _kill_heart(ground: Field, fault: Fault) -> None:
    _kill(_one(ground.program.pids("heart"), fault, "heart"))


def _kill_producer(ground: Field, fault: Fault) -> None:
    _party(ground.producers, fault).kill()


def _stop(ground: Field, pids: Sequence[int], fault: Fault) -> None:
    if not pids:
        raise Missed("no process is there")
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        ground.healing.wait(fault.seconds)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _stop_worker_process(ground: Field, fault: Fault) -> None:
    party = _party(ground.workers, fault)
    with _alone_with(party):
        pids = [party.pid] if party is ground.program else party.pids("child")
        _stop(ground, [pid for pid in pids if pid][fault.target % 7 % max(1, len(pids)) :][:1], fault)


def _stop_service(ground: Field, fault: Fault) -> None:
    party = _party(ground.workers, fault)
    with _alone_with(party):
        _stop(ground, [pid for pid in [party.pid, *party.pids()] if pid], fault)


def _stop_supervisor(ground: Field, fault: Fault) -> None:
    party = _party(ground.services, fault)
    with _alone_with(party):
        _stop(ground, [party.pid] if party.pid else [], fault)


def _restart_service(ground: Field, fault: Fault) -> None:
    party = _party(ground.workers, fault)
    with _alone_with(party):
        if party.restart(STOP_SECONDS_MAX) is None:
            ground.problems.append(
                f"{party.name} did not end within {STOP_SECONDS_MAX} s of SIGTERM: {fault}"
            )


# ── the server ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _server_alone(ground: Field) -> Iterator[None]:
    if not ground.server.busy.acquire(blocking=False):
        raise Missed("the server is under another fault")
    try:
        yield
    finally:
        ground.server.busy.release()


def _sessions(conn: psycopg.Connection, condition: str = "true") -> list[int]:
    rows = conn.execute(
        "select pid from pg_stat_activity where usename = 'workflow' and backend_type = 'client backend'"
        f" and {condition} order by pid".encode()
    )
    return [row[0] for row in rows]


def _terminate_sessions(ground: Field, fault: Fault) -> None:
    with ground.server.connect(is_superuser=True) as conn:
        pids = _sessions(conn)
        some = pids[fault.target % 5 :: 1 + fault.target % 4]
        conn.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) as pid", [some])


def _cancel_statements(ground: Field, fault: Fault) -> None:
    with ground.server.connect(is_superuser=True) as conn:
        for _ in range(20):  # statements are short: at most looks nothing is active
            pids = _sessions(conn, "state = 'active'")
            conn.execute("select pg_cancel_backend(pid) from unnest(%s::int[]) as pid", [pids])


def _restart_fast(ground: Field, fault: Fault) -> None:
    with _server_alone(ground):
        ground.server.stop_and_start(signal.SIGINT, pause_seconds=fault.seconds)


def _stop_at_once(ground: Field, fault: Fault) -> None:
    with _server_alone(ground):
        ground.server.stop_and_start(signal.SIGQUIT, pause_seconds=fault.seconds)


def _kill_backend(ground: Field, fault: Fault) -> None:
    with _server_alone(ground):
        with ground.server.connect(is_superuser=True) as conn:
            pid = _one(_sessions(conn), fault, "session")
        _kill(pid)  # the server ends all its sessions and recovers


def _kill_postmaster(ground: Field, fault: Fault) -> None:
    with _server_alone(ground):
        ground.server.stop_and_start(signal.SIGKILL, pause_seconds=fault.seconds)


# ── the tables ─────────────────────────────────────────────────────────────────────────────────────


def _lock_table(ground: Field, fault: Fault) -> None:
    with ground.server.connect() as conn, conn.transaction():
        conn.execute("set local lock_timeout = '2s'")
        conn.execute("lock table workflow_run in access exclusive mode")
        ground.healing.wait(fault.seconds)


def _hold_snapshot(ground: Field, fault: Fault) -> None:
    with ground.server.connect() as conn, conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from workflow_run")
        ground.healing.wait(fault.seconds)


def _vacuum_full(ground: Field, fault: Fault) -> None:
    with ground.server.connect() as conn:
        conn.execute("set lock_timeout = '5s'")
        conn.execute("vacuum full workflow_run")


def _migrate_again(ground: Field, fault: Fault) -> None:
    with ground.server.connect() as conn:
        if applied := migrate(conn, DEFAULT_SCHEMA):
            ground.problems.append(f"a second migration applied {applied}")


def _prune(ground: Field, fault: Fault) -> str:
    """Prune runs of one type, and keep them for the audit."""
    with ground.server.connect() as conn, conn.transaction():
        ended = read_rows(conn, "type = 'chaos.gone.v1' and status = 'succeeded'")
        (pruned,) = conn.execute(
            "select pruned from prune(now() - interval '2 seconds', array['chaos.gone.v1'], array['succeeded'])"
        ).fetchall()[0]
        left = read_rows(conn, "type = 'chaos.gone.v1'")
        # Before the commit: should its answer be lost, the audit looks which of them are there.
        keep_rows(ground.folder, [row for row in ended.values() if row.id not in left])
    return f"{pruned} runs"


def _disable_type(ground: Field, fault: Fault) -> None:
    name = TYPES[fault.target % len(TYPES)]
    change = "update workflow_registry set is_enabled = %s where workflow_name = %s"
    with ground.server.connect() as conn:
        conn.execute(change, [False, name])
    try:
        ground.healing.wait(fault.seconds)
    finally:
        _again_and_again(lambda conn: conn.execute(change, [True, name]), ground)


def _again_and_again(do: Callable[[psycopg.Connection], object], ground: Field) -> None:
    for _ in range(30):
        try:
            with ground.server.connect(seconds=30) as conn:
                do(conn)
            return
        except psycopg.Error:
            continue
    ground.problems.append("the harness could not heal its own fault")


# ── the network and the clocks ─────────────────────────────────────────────────────────────────────

OnLine = Callable[[Party, Fault, threading.Event], str | None]


def _on_line(do: OnLine) -> Callable[[Field, Fault], str | None]:
    """Let ``do`` happen to the line of one party, which has one fault at a time."""

    def strike_line(ground: Field, fault: Fault) -> str | None:
        party = _party(ground.parties, fault)
        if not party.line_busy.acquire(blocking=False):
            raise Missed(f"the line of {party.name} is under another fault")
        try:
            return do(party, fault, ground.healing)
        finally:
            party.line_busy.release()

    return strike_line


def _shift_clock(ground: Field, fault: Fault) -> None:
    clocked = [party for party in ground.workers if party.clock is not None]
    if not clocked:
        raise Missed("libfaketime is not installed")
    party = _party(clocked, fault)
    try:
        party.set_clock((-1 if fault.target % 2 else 1) * (86_400 if fault.target % 3 else 3_600))
        ground.healing.wait(fault.seconds)
    finally:
        party.set_clock(0)


KINDS: dict[str, Callable[[Field, Fault], str | None]] = {
    "kill a worker process": _kill_worker_process,
    "kill a supervisor": _kill_supervisor,
    "kill a worker's own program": _kill_program,
    "kill a heart": _kill_heart,
    "kill a producer": _kill_producer,
    "stop a worker process past its lease": _stop_worker_process,
    "stop a whole service past its lease": _stop_service,
    "stop a supervisor past its lease": _stop_supervisor,
    "restart a service": _restart_service,
    "terminate sessions": _terminate_sessions,
    "cancel statements": _cancel_statements,
    "restart the server fast": _restart_fast,
    "stop the server at once": _stop_at_once,
    "kill a backend": _kill_backend,
    "kill the postmaster": _kill_postmaster,
    "lock workflow_run": _lock_table,
    "hold a snapshot": _hold_snapshot,
    "vacuum full": _vacuum_full,
    "migrate again": _migrate_again,
    "prune": _prune,
    "disable a type": _disable_type,
    "black-hole a party": _on_line(lines.black_hole),
    "reset a party's connections": _on_line(lines.reset),
    "delay a party": _on_line(lines.delay),
    "half-open a party's connections": _on_line(lines.half_open),
    "swallow an answer": _on_line(lines.swallow),
    "shift a service's clock": _shift_clock,
}
