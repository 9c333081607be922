"""What the tables hold: runs with their events, also those that were pruned meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class Event:
    """``at`` is the database's time, in seconds of the epoch."""

    kind: str
    at: float
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.kind} {self.data}"


@dataclass(slots=True)
class Row:
    """A run as the table has it, with its events."""

    id: str
    type: str
    status: str
    attempt: int
    max_attempts: int
    token: int
    mark: str | None
    expect: str | None
    result_token: int | None
    result_nonce: str | None
    last_error: str | None
    events: list[Event] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.events)


def read_rows(conn: psycopg.Connection, condition: str = "true") -> dict[str, Row]:
    """Return the runs of which ``condition`` is true, by their ids."""
    rows = {
        values[0]: Row(*values)
        for values in conn.execute(
            "select id::text, type, status, attempt, max_attempts, fencing_token, payload ->> 'mark',"
            " payload ->> 'expect', (result ->> 'token')::bigint, result ->> 'nonce', last_error"
            f" from workflow_run where {condition}".encode()
        )
    }
    events = conn.execute(
        "select workflow_id::text, event_type, extract(epoch from created_at)::float8, data from workflow_event"
        f" where workflow_id in (select id from workflow_run where {condition}) order by workflow_id, id".encode()
    )
    for run_id, *event in events:
        if run_id in rows:
            rows[run_id].events.append(Event(*event))
    return rows


def keep_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Remember rows that are being pruned."""
    with (folder / "pruned").open("a") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def kept_rows(folder: Path) -> dict[str, Row]:
    """Return the rows that were pruned, by their ids."""
    path = folder / "pruned"
    kept = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        values = json.loads(line)
        values["events"] = [Event(**event) for event in values["events"]]
        kept[values["id"]] = Row(**values)
    return kept
