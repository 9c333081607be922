"""Workers killed again and again: nothing is lost, nothing ends twice.

``make kills`` runs it at full size: 20,000 runs, 8 workers, one SIGKILL a second, at least 30 of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

import psycopg

from builders import Database, ask, count
from simpleworkflow import statements

RUNS = int(os.environ.get("KILLS_RUNS", "1500"))
KILLS = int(os.environ.get("KILLS_COUNT", "6"))
PROCESSES = int(os.environ.get("KILLS_PROCESSES", "4"))
CONCURRENCY = int(os.environ.get("KILLS_CONCURRENCY", "15"))
SEED = int(os.environ.get("KILLS_SEED", random.randrange(1_000_000)))
DRAIN_SECONDS = 60 + RUNS / 50


def test_workers_killed_every_second_lose_no_run_and_end_none_twice(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    print(f"seed {SEED}: {RUNS} runs, {PROCESSES} workers, {KILLS} kills")
    chance = random.Random(SEED)
    ledger = tmp_path / "ledger"
    ids = _submit(db, chance)

    kills, seconds = _drain_under_fire(db, database_url, ledger, chance)

    executed = Counter(tuple(line.split()) for line in ledger.read_text().splitlines())
    assert kills >= KILLS
    assert count(db, "workflow_run", "status = 'succeeded'") == RUNS
    assert count(db, "workflow_event", "event_type = 'succeeded'") == RUNS
    assert {run_id for run_id, _ in executed} == ids
    assert max(executed.values()) == 1, "one claim was executed twice"
    assert ask(db, statements.verify(slack_seconds=5)) == []
    expired = count(db, "workflow_event", "event_type = 'expired'")
    print(f"{kills} kills in {seconds:.1f} s; {len(executed)} executions of {RUNS} runs; {expired} expired")


def _submit(db: Database, chance: random.Random) -> set[str]:
    payloads = [json.dumps({"milliseconds": chance.randint(50, 500)}) for _ in range(RUNS)]
    rows = db.execute(
        "select id::text from submit_many(%s, %s::text[]::jsonb[], null, null, null, null, %s)",
        [["kills.sleep.v1"] * RUNS, payloads, [20] * RUNS],
    )
    return {row[0] for row in rows}


def _drain_under_fire(db: Database, url: str, ledger: Path, chance: random.Random) -> tuple[int, float]:
    command = [Path(sys.executable).with_name("wf"), "worker", "kills_app:worker"]
    options = ["--processes", str(PROCESSES), "--concurrency", str(CONCURRENCY)]
    started = monotonic()
    supervisor = subprocess.Popen(
        [*command, *options],
        cwd=Path(__file__).parent,
        env=os.environ
        | {"DATABASE_URL": url, "KILLS_LEDGER": str(ledger), "SIMPLEWORKFLOW_LOG_LEVEL": "ERROR"},
        stdin=subprocess.DEVNULL,
    )
    try:
        kills = _kill_until_drained(db, started, chance)
        seconds = monotonic() - started
    finally:
        supervisor.terminate()
        assert supervisor.wait(40) == 0
    return kills, seconds


def _kill_until_drained(db: Database, started: float, chance: random.Random) -> int:
    kills, next_kill = 0, started + 2
    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as waiting:
        while count(db, "workflow_run", "status in ('pending', 'leased')"):
            assert monotonic() - started < DRAIN_SECONDS, "not drained in time"
            if monotonic() >= next_kill:
                kills += _kill_one(db, chance)
                next_kill += 1
            # A pause that the database keeps, not the test.
            waiting.execute("select pg_sleep(0.1)")
    return kills


def _kill_one(db: Database, chance: random.Random) -> int:
    rows = db.execute("select distinct leased_by from workflow_run where status = 'leased'").fetchall()
    pids = sorted(int(row[0].split(":")[-2]) for row in rows)
    if not pids:
        return 0
    try:
        os.kill(chance.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1
