"""The audit: what the tables hold, against what was told and done outside of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from chaos.ledger import entries
from chaos.plan import LEASE_SECONDS
from chaos.tables import Row, kept_rows, read_rows
from simpleworkflow import statements
from simpleworkflow.database import run as run_statement
from simpleworkflow.dburl import DEFAULT_SCHEMA

EXPLAINED_SECONDS = LEASE_SECONDS + 3
# Events that end an attempt by the word of the worker that holds it.
ENDED = ("succeeded", "failed", "retried")


@dataclass(frozen=True, slots=True)
class Problem:
    """A law that does not hold, and for which run."""

    law: str
    run_id: str
    found: str

    def __str__(self) -> str:
        return f"{self.law}: {self.run_id}: {self.found}"


@dataclass
class Evidence:
    """Everything the laws look at."""

    rows: dict[str, Row]
    producers: list[dict[str, Any]]
    executions: list[dict[str, Any]]
    operator: list[dict[str, Any]]
    by_mark: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    starts: Counter[tuple[str, int]] = field(default_factory=Counter)
    nonces: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows.values():
            self.by_mark[str(row.mark)].append(row)
        for entry in self.executions:
            key = (entry["run"], entry["token"])
            if entry["what"] == "start":
                self.starts[key] += 1
            elif entry["what"] == "end":
                self.nonces[key] = entry["nonce"]


def gather(conn: psycopg.Connection, folder: Path) -> Evidence:
    """Read the tables and the ledgers."""
    return Evidence(
        rows=kept_rows(folder) | read_rows(conn),
        producers=[
            entry | {"producer": path.name}
            for path in sorted(folder.glob("producer-*"))
            for entry in entries(path)
        ],
        executions=list(entries(folder / "executions")),
        operator=list(entries(folder / "operator")),
    )


def audit(
    conn: psycopg.Connection, evidence: Evidence, windows: Sequence[tuple[float, float]]
) -> list[Problem]:
    """Return every law that does not hold; ``windows`` are the times of faults."""
    laws = (_inserts, _executions, _outcomes, _attempts, _ends, _operators)
    problems = [problem for law in laws for problem in law(evidence)]
    problems += _expiries(evidence, windows)
    violations = run_statement(conn, statements.verify(slack_seconds=60), DEFAULT_SCHEMA)
    return problems + [Problem(f"wf verify, {one.law}", str(one.run_id), one.found) for one in violations]


def _inserts(evidence: Evidence) -> Iterator[Problem]:
    """P1, P9: what was acknowledged exists, once; what was told to have failed does not; nothing else does."""
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in evidence.producers:
        told[entry["mark"]].append(entry)
    for mark, words in told.items():
        rows = evidence.by_mark.get(mark, [])
        said = Counter(word["what"] for word in words)
        if len(rows) > 1:
            yield Problem(
                "one submission, one run", rows[0].id, f"{mark} has {len(rows)} rows; told: {dict(said)}"
            )
        if said["ok"] and not rows:
            yield Problem("an acknowledged insert exists", "-", f"{mark}: {words}")
        if rows and said["failed"] == said["intend"]:
            yield Problem("what was told to have failed does not exist", rows[0].id, f"{mark}: {words}")
        ids = {word["run"] for word in words if word["what"] == "ok" and word["run"]}
        if rows and ids - {rows[0].id}:
            yield Problem("the id that was told is the run's", rows[0].id, f"{mark}: {words}")
        if sum(word["what"] == "ok" and word["created"] for word in words) > 1:
            yield Problem("a key is new to one submission", rows[0].id if rows else "-", f"{mark}: {words}")
    for mark in evidence.by_mark.keys() - told.keys():
        yield Problem("nothing else exists", evidence.by_mark[mark][0].id, f"mark {mark} is nobody's")


def _executions(evidence: Evidence) -> Iterator[Problem]:
    """P2, P3: a claim is executed at most once, and nothing is executed that was not claimed."""
    for (run_id, token), times in evidence.starts.items():
        row = evidence.rows.get(run_id)
        if times > 1:
            yield Problem(
                "one claim, at most one execution", run_id, f"token {token} was executed {times} times"
            )
        if row is None or token > row.token:
            yield Problem("nothing is executed unclaimed", run_id, f"token {token} of {row and row.token}")


def _outcomes(evidence: Evidence) -> Iterator[Problem]:
    """P2, P3, P5: at most one outcome for each budget, computed by the execution that was accepted."""
    for row in evidence.rows.values():
        last = row.events[-1] if row.events else None
        if row.status == "succeeded":
            token = next((e.data.get("token") for e in reversed(row.events) if e.kind == "succeeded"), None)
            computed = evidence.nonces.get((row.id, row.result_token or 0))
            if row.result_token != token or row.result_nonce != computed:
                found = f"event {token}, result {row.result_token} {row.result_nonce}, computed {computed}"
                yield Problem("the result is the accepted execution's", row.id, found)
        if row.status == "cancelled" and (last is None or last.kind != "cancelled"):
            yield Problem("cancelled stays cancelled", row.id, f"the last event is {last}")
        if row.status in ("succeeded", "failed") and row.status != row.expect:
            yield Problem(
                "a run ends as its handler does",
                row.id,
                f"{row.status}, expected {row.expect}: {row.last_error}",
            )
        yield from _outcomes_of(row, evidence)


def _outcomes_of(row: Row, evidence: Evidence) -> Iterator[Problem]:
    ends = 0
    for event in row.events:
        if event.kind == "reopened":
            ends = 0
        elif event.kind in ("succeeded", "failed", "cancelled") or event.data.get("to") == "failed":
            ends += 1
            if ends > 1:
                yield Problem("one outcome for each budget", row.id, f"again at {event}")
        # What cannot be decoded fails before its handler; a process may die before it begins.
        may_not_begin = row.type == "chaos.hostile.v1" or "cpu" in row.type
        if (
            event.kind in ENDED
            and not may_not_begin
            and not evidence.starts[row.id, event.data.get("token", 0)]
        ):
            yield Problem("an outcome has an execution", row.id, f"none for {event}")


def _attempts(evidence: Evidence) -> Iterator[Problem]:
    """P4: an attempt is a claim that was not given back."""
    for row in evidence.rows.values():
        claims = row.count("leased") - row.count("released") - row.count("suspended")
        # A run that ends well gets back what crashes in company took.
        died = sum(e.kind == "expired" and e.data["error"].startswith("worker ") for e in row.events)
        if not claims - died <= row.attempt <= claims:
            yield Problem("attempts are explained", row.id, f"{row.attempt} attempts")
        # What failed by itself did so at most as often as it might.
        own = row.count("retried") + row.count("failed")
        if row.expect == "failed" and own > row.max_attempts:
            yield Problem("attempts are bounded", row.id, f"{own} failures of {row.max_attempts}")


def _expiries(evidence: Evidence, windows: Sequence[tuple[float, float]]) -> Iterator[Problem]:
    """P4: a lease is lost only through a fault, or because a handler killed its process."""
    crashed = {entry["pid"] for entry in evidence.executions if entry["what"] == "crash"}
    for row in evidence.rows.values():
        for event in row.events:
            is_odd = event.kind == "expired" and int(event.data["worker"].split(":")[-2]) not in crashed
            if is_odd and not any(a <= event.at <= b + EXPLAINED_SECONDS for a, b in windows):
                yield Problem("a lost lease is explained", row.id, str(event))


def _ends(evidence: Evidence) -> Iterator[Problem]:
    """P1: everything ends."""
    for row in evidence.rows.values():
        if row.status not in ("succeeded", "failed", "cancelled"):
            yield Problem(
                "everything ends", row.id, f"{row.status}, attempt {row.attempt} of {row.max_attempts}"
            )


def _operators(evidence: Evidence) -> Iterator[Problem]:
    """P5, P8: only the operator cancels and reopens, and what he was told is so."""
    intended: Counter[tuple[str, str]] = Counter()
    certain: Counter[tuple[str, str]] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    for entry in evidence.operator:
        key = (entry["verb"], entry["run"])
        intended[key] += entry["what"] == "intend"
        certain[key] += entry["what"] == "ok" and entry["changed"]
        # A client asks again for a lost answer to a cancel, and is then told that the run had ended.
        is_sure = entry["verb"] == "reopen" or entry.get("is_plain")
        refused[key] += entry["what"] == "failed" or (
            entry["what"] == "ok" and not entry["changed"] and is_sure
        )
    for row in evidence.rows.values():
        for verb, kind in (("cancel", "cancelled"), ("reopen", "reopened")):
            key, times = (verb, row.id), row.count(kind)
            if not certain[key] <= times <= intended[key] - refused[key]:
                found = f"{times} events; told yes {certain[key]}, no {refused[key]}, of {intended[key]}"
                yield Problem(f"a {verb} is as it was told", row.id, found)
