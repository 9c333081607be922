"""What a chaos run showed: a small table for people, one JSON line for the docs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

from chaos.audit import Evidence, Problem
from chaos.stage import Played

SHOWN_MAX = 12
EVENTS_MAX = 40


def figures(run: Played, evidence: Evidence) -> dict[str, Any]:
    """Return what the run showed as plain values."""
    events = Counter(event.kind for row in evidence.rows.values() for event in row.events)
    said = Counter(entry["what"] for entry in evidence.producers)
    struck = [fault.kind for _, fault, _, word in run.ground.ends if not word.startswith("missed")]
    return {
        "seed": run.plan.seed,
        "seconds": run.plan.seconds,
        "runs": len(evidence.rows),
        "statuses": dict(Counter(row.status for row in evidence.rows.values())),
        "told": {word: said[word] for word in ("ok", "failed", "unknown")},
        "executions": sum(evidence.starts.values()),
        "claims": events["leased"],
        "expired": events["expired"],
        "retried": events["retried"],
        "released": events["released"],
        "cancelled": events["cancelled"],
        "reopened": events["reopened"],
        "refused": sum(map(int, re.findall(r"results refused, .*: (\d+)", _logs(run)))),
        "restarts": {party.name: len(party.exits) for party in run.ground.parties if party.exits},
        "faults": dict(Counter(struck)),
        "missed": len(run.ground.ends) - len(struck),
        "recovery_seconds": recoveries(run, evidence),
        "load_on_each_core": run.load_max,
        "drain_seconds": None if run.drain_seconds is None else round(run.drain_seconds, 1),
    }


def recoveries(run: Played, evidence: Evidence) -> dict[str, float]:
    """Return for each kind of fault the longest time from its end until half the usual number succeeds in a second.

    Faults overlap: what another one took is counted too.
    """
    ends = sorted(e.at for row in evidence.rows.values() for e in row.events if e.kind == "succeeded")
    per_second = Counter(int((at - run.warm_at) * 4) for at in ends)
    warm = [per_second[n] for n in range(4, int((run.faults_at - run.warm_at) * 4))]
    usual = median(warm) if warm else 0
    longest: dict[str, float] = {}
    for _, fault, ended_at, word in run.ground.ends:
        if word.startswith("missed") or ended_at > run.healed_at:
            continue
        first = int((ended_at - run.warm_at) * 4)
        last = int((run.healed_at - run.warm_at) * 4)
        back = next(
            (n for n in range(first, last) if sum(per_second[n + i] for i in range(4)) >= 2 * usual), last
        )
        longest[fault.kind] = max(longest.get(fault.kind, 0), (back - first) / 4)
    return dict(sorted(longest.items()))


def table(shown: dict[str, Any]) -> str:
    """Return the figures as lines."""
    lines = [""]
    for name, value in shown.items():
        if name == "faults":
            recovery = shown["recovery_seconds"]
            lines.append(f"  {'faults':<18} {sum(value.values())}, longest recovery in seconds after it:")
            lines += [
                f"    {times:>3} x {kind:<40} {recovery.get(kind, '-')}"
                for kind, times in sorted(value.items())
            ]
        elif name != "recovery_seconds":
            words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            lines.append(f"  {name:<18} {words}")
    return "\n".join(lines)


def complaint(run: Played, evidence: Evidence, problems: list[Problem], others: list[str]) -> str:
    """Return all that is needed to find the cause: laws, runs with their events, faults, plan, seed."""
    lines = [
        f"{len(problems) + len(others)} problems; repeat with: make chaos PLAN={run.folder / 'plan.json'}"
    ]
    lines += others
    laws = Counter(problem.law for problem in problems)
    lines += [f"{times} x {law}" for law, times in laws.items()]
    for law in laws:
        for problem in [one for one in problems if one.law == law][:SHOWN_MAX]:
            lines += ["", str(problem), *_story(problem.run_id, evidence)]
    lines += ["", "faults:"]
    lines += [
        f"  {began - run.faults_at:6.1f} to {ended - run.faults_at:6.1f}  {fault.kind} [{fault.target}]: {word}"
        for began, fault, ended, word in sorted(run.ground.ends, key=lambda end: end[0])
    ]
    return "\n".join([*lines, f"the faults began at {run.faults_at:.3f}", json.dumps(figures(run, evidence))])


def _story(run_id: str, evidence: Evidence) -> Iterator[str]:
    row = evidence.rows.get(run_id)
    if row is None:
        return
    yield f"    {row.type} {row.status} attempt {row.attempt} of {row.max_attempts} token {row.token} {row.mark}"
    for event in row.events[-EVENTS_MAX:]:
        yield f"    {event}"[:400]
    for entry in (*evidence.executions, *evidence.operator):
        if entry["run"] == run_id:
            yield f"    ledger {entry}"


def _logs(run: Played) -> str:
    return "\n".join(party.log for party in run.ground.workers)
