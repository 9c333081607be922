"""Us beside the peers, the SQL floor and a plain table: on one fully durable PostgreSQL, in one run, in turns.

    make bench                                      three rounds of every system that can be installed here
    make bench QUICK=1                              one short round, within two minutes
    make bench ARGS='--only ours,pgqueuer --rounds 5 --json bench.json --markdown docs/benchmark.md'

Figures are medians of the rounds with the lowest and the highest; read them as ratios, on this machine.  Peers are
installed once, by name and version from their registries, below .bench.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg

import databases
import environments
import page
from measures import as_json, summary
from report import table
from rounds import Bench, Effort, Figures, submit_in_turns
from simpleworkflow.errors import WorkflowError
from stage import server
from systems import NotMeasuredError, System, systems

QUICK = Effort(
    jobs_max=20_000, drain_seconds=0.4, drain_seconds_max=20, submits_max=400, submit_seconds=0.25,
    latencies=40, latency_seconds=1.0, jobs_min=200, begin_seconds_max=100,
)  # fmt: skip


def main() -> int:
    """Measure, and show it in each form that was asked for."""
    options = _options()
    try:
        asked = systems(options.only)
        with server(options.database_url) as url:
            result = _measure(url, asked, options)
    except (NotMeasuredError, WorkflowError, psycopg.Error) as error:
        print(f"bench: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.markdown:
        page.write(options.markdown, result)
    return 0 if result["systems"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = "names of systems with commas between; default: all"
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help=names)
    parser.add_argument("--rounds", type=int, help="default: 3, quick 1")
    parser.add_argument(
        "--runs", type=int, help="at most so many runs in a drain; default: 60,000, quick 20,000"
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--database-url", help="default: an embedded server of its own, fully durable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for programs")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the page, and its chart beside it"
    )
    return parser.parse_args()


def _measure(url: str, asked: list[System], options: argparse.Namespace) -> dict[str, Any]:
    effort = _effort(options)
    rounds = options.rounds or (1 if options.quick else 3)
    found: dict[str, list[Figures]] = {}
    missing: dict[str, str] = {}
    benches = _benches(url, asked, effort, missing)
    late: set[str] = set()
    began_at = time.monotonic()
    for number in range(rounds):
        at = number % max(1, len(benches))
        turned = benches[at:] + benches[:at]  # nobody is always first, or always after the same one
        begun = [one for one in turned if one.system.name not in missing]
        print(f"round {number + 1} of {rounds}: submits one by one", file=sys.stderr, flush=True)
        submits = submit_in_turns(begun, missing)
        for bench in begun:
            name = bench.system.name
            if name in missing:
                continue
            if time.monotonic() - began_at > effort.begin_seconds_max:
                late.add(name)
                continue
            print(f"round {number + 1} of {rounds}: {bench.system.title}", file=sys.stderr, flush=True)
            try:
                found.setdefault(name, []).append({"submit": [submits[name]]} | bench.round())
            except (NotMeasuredError, psycopg.Error) as error:
                missing[name] = str(error).splitlines()[0]
                print(f"  not measured: {missing[name]}", file=sys.stderr, flush=True)
    missing |= {name: "the time of this run was over" for name in late if name not in found}
    summaries = {
        one.name: summary(found[one.name]) for one in asked if one.name in found and one.name not in missing
    }
    return {
        "machine": _machine(url),
        "measured": {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rounds": rounds,
            "effort": asdict(effort),
            "seconds": round(time.monotonic() - began_at),
            "command": _command(),
            "runs_a_drain": {bench.system.name: bench.jobs for bench in benches if bench.jobs},
        },
        "described": {one.name: asdict(one) for one in asked},
        "systems": as_json(summaries),
        "not_measured": missing,
    }


def _effort(options: argparse.Namespace) -> Effort:
    effort = QUICK if options.quick else Effort()
    return Effort(**asdict(effort) | {"jobs_max": options.runs}) if options.runs else effort


def _benches(url: str, asked: list[System], effort: Effort, missing: dict[str, str]) -> list[Bench]:
    benches = []
    for system in asked:
        try:
            benches.append(Bench(system, environments.command(system), url, effort))
        except NotMeasuredError as error:
            missing[system.name] = str(error)
            print(f"{system.title}: not measured: {error}", file=sys.stderr, flush=True)
    return benches


def _machine(url: str) -> dict[str, Any]:
    """Return what a reader has to know; no names of hosts, no paths."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": databases.facts(url),
    }


def _command() -> str:
    words = [word for word in sys.argv[1:] if word != "--quick"]
    hidden = {at for at, word in enumerate(words) if word.startswith("--database-url")}
    hidden |= {at + 1 for at in hidden if "=" not in words[at]}
    arguments = " ".join(
        Path(word).name if Path(word).is_absolute() else word
        for at, word in enumerate(words)
        if at not in hidden
    )
    quick = " QUICK=1" if "--quick" in sys.argv else ""
    return f"make bench{quick}" + (f" ARGS='{arguments}'" if arguments else "")


if __name__ == "__main__":
    sys.exit(main())
