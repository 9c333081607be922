"""What ``wf run cancel`` and ``wf run reopen`` do with a filter: an operation, watched until it ends."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from simpleworkflow.cli.arguments import Moment
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import print_json
from simpleworkflow.cli.session import open_client, open_connection
from simpleworkflow.operation import OPERABLE

if TYPE_CHECKING:
    from simpleworkflow.client import Client
    from simpleworkflow.model import Status
    from simpleworkflow.operation import Operation, OperationKind

F = TypeVar("F", bound=Callable[..., Any])

LOOK_SECONDS = 0.25
_DONE = {"cancel": "cancelled", "reopen": "reopened"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs are meant, and what is to happen with the command."""

    patterns: Sequence[str]
    statuses: Sequence[Status]
    since: datetime | None
    before: datetime | None
    dry_run: bool
    wait: bool

    def refuse_without_pattern(self, run_ids: Sequence[UUID]) -> None:
        """Do nothing if there are either ids or a pattern.

        Raises:
            UsageError: there are both, or neither.
        """
        context = click.get_current_context()
        if bool(run_ids) == bool(self.patterns):
            raise click.UsageError("expected either ids of runs or --pattern; all types are '%'", context)
        narrowed = self.statuses or self.since or self.before or self.dry_run or not self.wait
        if run_ids and narrowed:
            raise click.UsageError(
                "--status, --since, --before, --dry-run and --no-wait are for --pattern", context
            )


def filter_options(kind: OperationKind) -> Callable[[F], F]:
    """Let a command take a filter instead of ids, as its argument ``found``."""
    options = [
        click.option(
            "--pattern",
            "patterns",
            metavar="PATTERN",
            multiple=True,
            help="All runs of a type, or of a prefix such as 'billing.%'.",
        ),
        click.option(
            "--status",
            "statuses",
            type=click.Choice(OPERABLE[kind]),
            multiple=True,
            help="Only those; repeat it for several.",
        ),
        click.option(
            "--since", metavar="TIME", type=Moment(may_be_ago=True), help="Created then or later; 2h ago."
        ),
        click.option(
            "--before", metavar="TIME", type=Moment(may_be_ago=True), help="Created earlier than that."
        ),
        click.option("--dry-run", is_flag=True, help="Only count them."),
        click.option("--wait/--no-wait", default=True, show_default=True, help="Watch it until it ends."),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def operate(
    kind: OperationKind, wanted: Filter, *, reason: str | None, attempts: int = 3, as_json: bool
) -> None:
    """Count what matches, or change it all; watch it, unless nobody waits."""
    chosen = {
        "patterns": wanted.patterns,
        "statuses": wanted.statuses or None,
        "created_from": wanted.since,
        "created_before": wanted.before,
    }
    with open_client() as client:
        if wanted.dry_run:
            counted = client.count_operable(kind, **chosen, look_at_all=True)  # type: ignore[arg-type]
            if as_json:
                print_json({"matched": counted.matched, "is_exact": counted.is_exact})
            else:
                click.echo(f"would {kind} {_runs(counted.matched)}")
            return
        operation = client.operate(kind, **chosen, reason=reason or "", attempts=attempts)  # type: ignore[arg-type]
        if wanted.wait:
            operation = watch(client, operation)
    if as_json:
        print_json({"operation": operation_document(operation)})
    elif operation.is_running:
        click.echo(
            f"operation {operation.id} is recorded; see how it stands: wf operation show {operation.id}"
        )
    else:
        click.echo(said(operation))
    if operation.state in ("failed", "stopped"):
        raise click.exceptions.Exit(ExitCode.NO)


def watch(client: Client, operation: Operation) -> Operation:
    """Return an operation when it has ended, its progress on stderr where people read.

    Where no worker carries it out, this does: it needs none.
    """
    screen = _Screen(operation)
    try:
        with _carrier() as carry:
            while operation.is_running:
                rest = carry()
                operation = client.operation(operation.id)
                screen.show(operation)
                sleep(rest if operation.is_running else 0)
    except KeyboardInterrupt:
        screen.clear()
        click.echo(
            f"operation {operation.id} goes on where a worker runs; to stop it: wf operation stop {operation.id}",
            err=True,
        )
        raise
    screen.clear()
    return operation


def said(operation: Operation) -> str:
    """Return in one line how an operation ended."""
    line = f"{_DONE[operation.kind]} {_runs(operation.changed)}"
    if operation.matched is not None and operation.matched != operation.changed:
        line += f" of {operation.matched:,} that matched"
    if operation.state == "stopped":
        line += f"; stopped by {operation.stopped_by}"
    if operation.state == "failed":
        line += f"; failed: {operation.error}"
    return line


def operation_document(operation: Operation) -> dict[str, Any]:
    """Return an operation for programs."""
    return {field.name: getattr(operation, field.name) for field in fields(operation)}


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


@contextmanager
def _carrier() -> Iterator[Callable[[], float]]:
    """Yield a call that carries out one chunk if nobody else does, and returns how long to rest."""
    from simpleworkflow import database as runner
    from simpleworkflow.maintenance.operations import CHUNK_RUNS, LEASE_SECONDS, rest_seconds
    from simpleworkflow.statements import carry_operation

    name = f"{socket.gethostname()}:{os.getpid()}:wf"
    statement = carry_operation(name, limit=CHUNK_RUNS, lease_seconds=LEASE_SECONDS)
    with open_connection() as (connection, database):

        def carry() -> float:
            started = monotonic()
            carried = runner.run(connection, statement, database.schema)
            return LOOK_SECONDS if carried is None else rest_seconds(monotonic() - started)

        yield carry


class _Screen:
    """One line that is written again and again, where stderr is a terminal."""

    def __init__(self, operation: Operation) -> None:
        self._is_shown = sys.stderr.isatty()
        self._started = monotonic()
        self._before = operation.done

    def show(self, operation: Operation) -> None:
        if not self._is_shown:
            return
        per_second = (operation.done - self._before) / max(0.001, monotonic() - self._started)
        of = "counting" if operation.matched is None else f"{operation.done:,} of {operation.matched:,}"
        click.echo(
            f"\r\x1b[K{operation.kind}: {of} ({per_second:,.0f}/s); Ctrl-C leaves it", nl=False, err=True
        )

    def clear(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
