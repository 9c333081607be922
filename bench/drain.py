"""How fast no-op runs are drained: a worker process as shipped, beside the SQL functions called bare.

    make bench                   three rounds of 60,000 runs each
    make bench QUICK=1           one round of 20,000

Everything is measured in one run on one server, in turns, so that the ratios mean something; absolute figures
are this machine's.  Audited and fenced throughout: created, leased and succeeded events for every run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator

import psycopg

from simpleworkflow.database import run
from simpleworkflow.statements import Finished, exchange
from stage import SCHEMA, TYPE, drain_rate, fresh_schema, memory_mb, server, submit, timed, worker

FLOOR_BATCH = 250  # what one exchanger of a worker with the default concurrency claims at once


def main() -> None:
    """Measure, and print one table; ``--json`` prints the figures for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url", help="default: an embedded server of its own, fully durable")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with server(options.database_url) as url:
        figures = _measure(url, options.runs, options.rounds)
    print(json.dumps(figures, indent=2) if options.json else _table(figures, options.runs, options.rounds))


def _measure(url: str, runs: int, rounds: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, value in _one_round(url, runs):
            figures.setdefault(name, []).append(value)
    return figures


def _one_round(url: str, runs: int) -> Iterator[tuple[str, float]]:
    with fresh_schema(url) as conn:
        yield "submit in bulk, runs/s", runs / timed(lambda: submit(conn, runs))
        yield "SQL functions, one connection, no handlers, runs/s", runs / timed(lambda: _drain_bare(conn))
    with fresh_schema(url) as conn, worker(url) as supervisor:
        yield "one worker process, runs/s", drain_rate(conn, runs)
        yield "worker memory after the first drain, MB", memory_mb(supervisor)
        yield "one worker process, second drain, runs/s", drain_rate(conn, runs)
        yield "worker memory after the second drain, MB", memory_mb(supervisor)
    with fresh_schema(url) as conn, worker(url, processes=2):
        yield "two worker processes, runs/s", drain_rate(conn, runs)


def _drain_bare(conn: psycopg.Connection) -> None:
    finished: list[Finished] = []
    while True:
        statement = exchange("bare", finished, [TYPE], limit=FLOOR_BATCH, lease_seconds=30)
        claimed = run(conn, statement, SCHEMA).claimed
        finished = sorted(Finished(one.id, one.fencing_token, "succeeded") for one in claimed)
        if not finished:
            return


def _table(figures: dict[str, list[float]], runs: int, rounds: int) -> str:
    lines = [f"{runs:,} runs a round, {rounds} rounds, median (lowest to highest)", ""]
    for name, values in figures.items():
        middle = statistics.median(values)
        lines.append(f"{name:<52} {middle:>10,.0f}   ({min(values):,.0f} to {max(values):,.0f})")
    floor = statistics.median(figures["SQL functions, one connection, no handlers, runs/s"])
    ours = statistics.median(figures["one worker process, runs/s"])
    lines += ["", f"one worker process / SQL functions: {ours / floor:.2f}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
