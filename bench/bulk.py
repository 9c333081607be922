"""What a bulk cancel of 100,000 runs costs those who claim meanwhile, and how soon a dead carrier is replaced.

    .venv/bin/python bench/bulk.py [--runs 100000]

A claimer exchanges one run at a time, as fast as it can: alone, then while ``wf run cancel --pattern`` works in a
process of its own, and alone again, because claims that remember no lanes get slower by themselves.  Full durability;
client and server share the machine.
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
from collections.abc import Callable
from pathlib import Path

import psycopg

from simpleworkflow import Client, embedded
from simpleworkflow.database import run
from simpleworkflow.migrate import migrate
from simpleworkflow.statements import Finished, exchange

SCHEMA = "bulk"
WF = str(Path(sys.executable).with_name("wf"))
ALONE_SECONDS = 8.0


def main() -> None:
    """Measure, and print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="wf-bulk-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with embedded.start(folder / "postgres") as postgres:
            url = f"{postgres.url}{'&' if '?' in postgres.url else '?'}schema={SCHEMA}"
            with psycopg.connect(postgres.url, autocommit=True) as conn:
                migrate(conn, SCHEMA)
                _measure(conn, url, runs)


def _measure(conn: psycopg.Connection, url: str, runs: int) -> None:
    _load(conn, "old.v1", runs)
    _load(conn, "live.v1", 100_000)
    for pattern, what in (("live.%", "of another type"), ("%", "of the same lanes too")):
        alone = _claim(conn, pattern, _for_seconds(ALONE_SECONDS))
        cancelling = _wf(url, "run", "cancel", "--pattern", "old.%", "--reason", "a measurement")
        began = time.monotonic()
        meanwhile = _claim(conn, pattern, _while_running(cancelling))
        print(f"{what}: {cancelling.communicate()[0].decode().strip()} in {time.monotonic() - began:.1f} s")
        after = _claim(conn, pattern, _for_seconds(ALONE_SECONDS))
        _say("claims alone, before", alone)
        _say("claims meanwhile", meanwhile)
        _say("claims alone, after", after)
        _load(conn, "old.v1", runs)
    _kill(conn, url)


def _kill(conn: psycopg.Connection, url: str) -> None:
    with Client(url) as client:
        first = _wf(url, "run", "cancel", "--pattern", "old.%", "--reason", "a measurement")
        time.sleep(3)
        first.send_signal(signal.SIGKILL)
        first.wait()
        killed_at, before = time.monotonic(), client.operations()[0]
        second = _wf(url, "operation", "show", str(before.id), "--watch", "--json")
        while client.operation(before.id).changed == before.changed:
            time.sleep(0.02)
        seconds = time.monotonic() - killed_at
        print(f"killed after {before.changed:,} of {before.matched:,}; another went on after {seconds:.1f} s")
        second.wait()
        ended = client.operation(before.id)
        print(f"in the end {ended.state}: {ended.changed:,} changed of {ended.matched:,}")
    row = conn.execute(
        f"select count(*), count(distinct workflow_id) from {SCHEMA}.workflow_event where event_type = 'cancelled'"
        " and data ->> 'operation' = %s and data ->> 'reason' = 'a measurement' and data ? 'by'".encode(),
        [str(before.id)],
    ).fetchone()
    assert row is not None
    print(f"audited: {row[0]:,} events of {row[1]:,} runs")


def _load(conn: psycopg.Connection, type_: str, runs: int) -> None:
    conn.execute(
        f"insert into {SCHEMA}.workflow_run (type, payload) select %s, '{{}}' from generate_series(1, %s)".encode(),
        [type_, runs],
    )
    conn.execute(f"analyze {SCHEMA}.workflow_run".encode())


def _claim(conn: psycopg.Connection, pattern: str, goes_on: Callable[[], bool]) -> list[float]:
    """Return the seconds that each exchange took."""
    seconds: list[float] = []
    finished: list[Finished] = []
    while goes_on():
        started = time.monotonic()
        got = run(conn, exchange("bench", finished, [pattern], limit=1, lease_seconds=60), SCHEMA)
        seconds.append(time.monotonic() - started)
        finished = [Finished(one.id, one.fencing_token, "succeeded", None) for one in got.claimed]
    return seconds


def _for_seconds(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until


def _while_running(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    return lambda: process.poll() is None


def _say(what: str, seconds: list[float]) -> None:
    cut = statistics.quantiles(seconds, n=100)
    print(
        f"  {what}: {len(seconds):,}; median {1000 * cut[49]:.2f} ms, p95 {1000 * cut[94]:.2f} ms, "
        f"p99 {1000 * cut[98]:.2f} ms, longest {1000 * max(seconds):.1f} ms"
    )


def _wf(url: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [WF, *arguments],
        env=os.environ | {"DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


if __name__ == "__main__":
    main()
