"""A run and its audit trail, for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from simpleworkflow.cli.output import console, plain_table, print_table, status_text
from simpleworkflow.cli.text import clock, moment, one_line, safe, shortened, span

if TYPE_CHECKING:
    from rich.text import Text

    from simpleworkflow.model import Run, RunEvent

_VALUE_CHARACTERS_MAX = 2_000
_ERROR_CHARACTERS_MAX = 300

EVENT_STYLES = {
    "created": "yellow",
    "leased": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "retried": "magenta",
    "expired": "magenta",
    "cancelled": "red",
    "reopened": "yellow",
    "heartbeat": "dim",
    "progress": "dim",
}


def print_run(run: Run) -> None:
    """Print what a run is, one line for each fact."""
    from rich.text import Text

    attempts = f"  (attempt {run.attempt} of {run.max_attempts})" if run.attempt else ""
    facts: dict[str, str | Text | None] = {
        "run": str(run.id),
        "type": safe(run.type),
        "status": status_text(run.status) + Text(attempts),
        "payload": None if "payload" in run.hidden else _json(run.payload),
        "result": None if run.result is None else _json(run.result),
        "error": run.last_error and _lines(run.last_error),
        "key": run.idempotency_key and safe(run.idempotency_key),
        "priority": None if run.priority == 100 else str(run.priority),
        "due": moment(run.run_at) if run.status == "pending" else None,
        "leased by": run.leased_by and f"{safe(run.leased_by)} until {moment(run.lease_until or run.run_at)}",
        "created": moment(run.created_at),
        "finished": None if run.finished_at is None else _finished(run.created_at, run.finished_at),
        "deleted": None if run.deleted_at is None else moment(run.deleted_at),
        "hidden": f"{', '.join(sorted(run.hidden))}: not this role's to read" if run.hidden else None,
    }
    table = plain_table("", "")
    table.show_header = False
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="bold"), value)
    print_table(table)


def _finished(created_at: datetime, finished_at: datetime) -> str:
    return f"{moment(finished_at)}, {span((finished_at - created_at).total_seconds())} later"


def print_events(events: Iterable[RunEvent]) -> None:
    """Print an audit trail: when, how long after the event before, what."""
    from rich.text import Text

    table = plain_table("time (UTC)", "after", "event", "what")
    table.columns[1].justify = "right"
    before: datetime | None = None
    for event in events:
        after = "" if before is None else span((event.created_at - before).total_seconds())
        name = Text(safe(event.event_type), style=EVENT_STYLES.get(event.event_type, ""))
        table.add_row(clock(event.created_at), after, name, describe(event))
        before = event.created_at
    print_table(table)


def print_event_line(event: RunEvent, *, with_run: bool) -> None:
    """Print one event in one line, at once."""
    from rich.text import Text

    line = Text(f"{clock(event.created_at)}  ")
    line.append(f"{event.run_id}  " if with_run else "")
    line.append(f"{safe(event.event_type):<9}", style=EVENT_STYLES.get(event.event_type, ""))
    line.append(f"  {describe(event)}")
    console().print(line, soft_wrap=True)


def describe(event: RunEvent) -> str:
    """Return what an event says, in words; what we do not know of is shown as it is."""
    found = _WORDS.get(event.event_type, _other)
    try:
        return found(event.data)
    except (KeyError, TypeError, ValueError, OverflowError):
        return _other(event.data)


def _other(data: object) -> str:
    if not isinstance(
        data, Mapping
    ):  # what Python cannot hold, such as a number of 5,000 digits, is shown as text
        return _json(data)
    return ", ".join(f"{safe(name)} {_json(value)}" for name, value in data.items())


def _attempt(data: Mapping[str, Any]) -> str:
    return f"attempt {data['attempt']}"


def _error(data: Mapping[str, Any]) -> str:
    return shortened(one_line(data["error"]), _ERROR_CHARACTERS_MAX)


def _because(data: Mapping[str, Any]) -> str:
    return f": {shortened(one_line(data['reason']), _ERROR_CHARACTERS_MAX)}" if data.get("reason") else ""


def _cancelled(data: Mapping[str, Any]) -> str:
    while_ = f" during attempt {data['attempt']}" if data["from"] == "leased" else f" while {data['from']}"
    return f"by {one_line(data['by'])}{while_}{_because(data)}"


def _progress(data: Mapping[str, Any]) -> str:
    progress = data["progress"]
    if not isinstance(progress, Mapping) or not progress.keys() <= {"percent", "message"}:
        return _json(progress)
    # By the SQL function any JSON may stand there.
    percent = f"{_json(progress['percent'])} %" if progress.get("percent") is not None else ""
    return "  ".join(part for part in (percent, one_line(progress.get("message") or "")) if part)


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "created": lambda data: f"by {one_line(data['by'])}",
    "leased": lambda data: f"{_attempt(data)}, token {data['token']}, by {one_line(data['worker'])}",
    "succeeded": _attempt,
    "failed": lambda data: f"{_attempt(data)}: {_error(data)}",
    "retried": lambda data: (
        f"{_attempt(data)}: {_error(data)}; again at {clock(datetime.fromisoformat(data['run_at']))}"
    ),
    "expired": lambda data: (
        f"{_error(data)}; now {one_line(data['to'])}{', to be run alone' if data.get('suspect') else ''}"
    ),
    "released": lambda data: f"{_attempt(data)} given back",
    "heartbeat": lambda data: f"lease extended by {data['seconds']:g} s",
    "progress": _progress,
    "cancelled": _cancelled,
    "reopened": lambda data: (
        f"by {one_line(data['by'])}, up to attempt {data['max_attempts']}{_because(data)}"
    ),
}


def _json(value: object) -> str:
    return safe(shortened(json.dumps(value, ensure_ascii=False, default=str), _VALUE_CHARACTERS_MAX))


def _lines(text: str) -> str:
    return "\n".join(safe(line) for line in shortened(text, _VALUE_CHARACTERS_MAX).splitlines())
