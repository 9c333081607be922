"""The words: those of the design's vocabulary, and no synonyms."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

import simpleworkflow
from builders import Database
from docs.pages import PAGES
from house.sources import MODULES, PACKAGE, ROOT
from simpleworkflow.cli.program import program
from simpleworkflow.model import STATUSES

# What others say for run, submit, claim, finish, heartbeat, worker; and names that say nothing.
SYNONYMS = {
    *("job", "jobs", "task", "tasks", "message", "messages", "workflow", "workflows"),
    *("enqueue", "dequeue", "queue", "dispatch", "publish", "consume", "consumer", "subscriber"),
    *("ack", "nack", "acknowledge", "complete", "completed", "succeed", "done", "canceled", "canceling"),
    *("acquire", "fetch", "reserve", "lock", "renew", "tries", "retries", "kwargs"),
    *("data", "info", "manager", "helper", "helpers", "util", "utils", "common", "misc"),
}
# Columns of the table contract, and what other parts of the world are called.
ALLOWED = {
    "workflow_id",
    "workflow_name",
    "workflow_run",
    "workflow_event",
    "data",  # the column of workflow_event, and the attribute of RunEvent that holds it
    "done",  # how far an operation has come, beside matched and changed
    "message",  # what run.progress(percent, message) says
}
_EVENTS = {
    *("created", "leased", "succeeded", "failed", "retried", "released", "expired", "cancelled", "reopened"),
    *("heartbeat", "progress"),
}
_TEXTS = [
    *PAGES,
    *MODULES,
    *PACKAGE.rglob("*.sql"),
    *(ROOT / "examples").rglob("*.py"),
    *(path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "house"),
]


def test_public_names_in_python_use_no_synonyms() -> None:
    assert _synonyms(_python_names()) == []


def test_names_in_the_database_use_no_synonyms(db: Database) -> None:
    rows = db.execute(
        "select proname from pg_proc where pronamespace = %(schema)s::regnamespace"
        " union select unnest(proargnames) from pg_proc where pronamespace = %(schema)s::regnamespace"
        " union select attname from pg_attribute join pg_class on pg_class.oid = attrelid"
        " where relnamespace = %(schema)s::regnamespace and attnum > 0",
        {"schema": db.schema},
    )
    names = {row[0].removeprefix("p_") for row in rows if row[0] and not row[0].startswith("v_")}

    # Of the functions that only others here call, the verb is PostgreSQL's own: they lock rows.
    assert _synonyms(names - {"lock_due_runs", "lock_in_lanes", "lock_due_suspect"}) == []


def test_commands_and_options_use_no_synonyms() -> None:
    assert _synonyms(_command_names("", program)) == []


def test_modules_are_named_after_what_they_are() -> None:
    assert _synonyms(path.stem for path in [*MODULES, *PACKAGE.rglob("*/")]) == []


def test_the_pages_know_every_status_and_every_event() -> None:
    concepts = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    contract = (ROOT / "docs/sql-contract.md").read_text(encoding="utf-8")

    assert [status for status in STATUSES if f"| `{status}` |" not in concepts] == []
    assert [event for event in _EVENTS if f"`{event}`" not in concepts or f"`{event}`" not in contract] == []


@pytest.mark.parametrize("path", _TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_exactly_once_is_said_of_outcomes_only_and_cancelled_has_two_ls(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()

    careless = [
        line for line in lines if re.search(r"exactly[- ]once", line, re.IGNORECASE) and "outcome" not in line
    ]
    assert careless == []
    # In quotes it is what somebody typed.
    assert [line for line in lines if re.search(r"(?<!')\bcancel(ed|ing)\b", line, re.IGNORECASE)] == []


def _python_names() -> Iterator[str]:
    for name in simpleworkflow.__all__:
        thing = getattr(simpleworkflow, name)
        yield from re.findall(
            r"[A-Z][a-z]+|[a-z]+", name.removeprefix("Workflow").replace("AsyncWorkflow", "")
        )
        members = (
            [thing, *(member for key, member in vars(thing).items() if key[0] != "_")]
            if _is_ours(thing)
            else []
        )
        for member in members:
            yield getattr(member, "__name__", "")
            with suppress(ValueError, TypeError):  # of an error, and of a property, there is no signature
                yield from inspect.signature(member).parameters


def _is_ours(thing: object) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


def _command_names(path: str, group: click.Group) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name
        yield from (opt.lstrip("-").replace("-", "_") for param in command.params for opt in param.opts)
        if isinstance(command, click.Group):
            yield from _command_names(f"{path} {name}", command)


def _synonyms(names: object) -> list[str]:
    wrong = set()
    for name in names:  # type: ignore[attr-defined]
        words = set(re.split(r"[_.]", name.lower()))
        if words & SYNONYMS and name not in ALLOWED and not name.startswith("Workflow"):
            wrong.add(name)
    return sorted(wrong)
