"""What the demo does, each act shown as somebody would type it, and what it waits to see in the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import click

from simpleworkflow.cli.demo_screen import Screen
from simpleworkflow.cli.demo_workers import POLL_SECONDS, Workers
from simpleworkflow.database import connect
from simpleworkflow.errors import WorkflowError

if TYPE_CHECKING:
    from simpleworkflow.client import Client
    from simpleworkflow.resolve import Database

PATIENCE_SECONDS = 20.0

INSERT = "INSERT INTO workflow_run (type, payload)\nVALUES ('{type}',\n  '{payload}')"
CANCEL = (
    "UPDATE workflow_run SET status = 'cancelled', updated_at = NOW()\n"
    " WHERE id = '{id}'\n"
    "   AND status IN ('pending', 'leased')"
)


class Stage:
    """Submits, inserts, cancels and waits; at a sudden end cancels what it has submitted."""

    def __init__(self, client: Client, database: Database, workers: Workers, screen: Screen) -> None:
        self.client = client
        self.database = database
        self.workers = workers
        self.screen = screen
        self._run_ids: list[UUID] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run_id in self._run_ids if error is not None else ():
            with suppress(WorkflowError):
                self.client.cancel(run_id, reason="the demo was ended")

    def submit(self, type_: str, payload: dict[str, Any]) -> UUID:
        """Submit a run by the client."""
        self.screen.show(f'client.submit("{type_}",\n  {json.dumps(payload)})')
        return self._remember(self.client.submit(type_, payload).id)

    def insert(self, type_: str, payload_json: str) -> UUID:
        """Submit a run by a plain INSERT."""
        row = self._execute(INSERT.format(type=type_, payload=payload_json), returning=" RETURNING id")
        return self._remember(row[0])

    def cancel(self, run_id: UUID) -> None:
        """Cancel a run by a plain UPDATE."""
        self._execute(CANCEL.format(id=run_id))

    def expect_second_operation(self, run_id: UUID) -> int:
        """Wait for the heartbeat after a video's first operation; return the process that executes it.

        Raises:
            ClickException: it is none of the demo's own.
        """
        self.wait_until(
            lambda: any(event.event_type == "heartbeat" for event in self.client.events(run_id)),
            f"run {run_id} comes to its second operation",
        )
        worker = self.client.get(run_id).leased_by or ""
        pid = int(worker.split(":")[-2]) if worker.count(":") >= 2 else 0  # its id is host:pid:random
        if not self.workers.holds("video", pid):
            raise click.ClickException(
                f"run {run_id} went to {worker or 'nobody'}, no worker of the demo; stop it"
            )
        return pid

    def expect_end(self, run_id: UUID, status: str, *, attempt: int) -> None:
        """Wait for the end of a run.

        Raises:
            ClickException: it ended in another way.
        """
        self.wait_until(lambda: self.client.get(run_id).has_ended, f"run {run_id} ends")
        run = self.client.get(run_id)
        if (run.status, run.attempt) != (status, attempt):
            raise click.ClickException(
                f"the demo expected run {run_id} to end {status} in attempt {attempt}, "
                f"got {run.status} in attempt {run.attempt}"
                + (f": {run.last_error}" if run.last_error else "")
            )

    def expect_line(self, worker: str, line: str) -> None:
        """Wait until a worker has printed a line."""
        self.wait_until(lambda: self.workers.has_said(worker, line), f"the {worker} worker says {line!r}")

    def wait_until(self, has_happened: Callable[[], bool], what: str) -> None:
        """Wait for something.

        Raises:
            ClickException: it does not happen, or a worker ends.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not has_happened():
            self.workers.check()
            if time.monotonic() > deadline:
                raise click.ClickException(f"the demo waited {PATIENCE_SECONDS:g} s in vain for this: {what}")
            time.sleep(POLL_SECONDS)

    def _execute(self, sql: str, *, returning: str = "") -> Any:
        """Show plain SQL and execute it as any program on any connection may; return a row if one is asked."""
        self.screen.show(sql + ";")
        with connect(self.database.portable) as connection:
            answer = connection.execute(f"{sql}{returning}".encode())
            return answer.fetchone() if returning else None

    def _remember(self, run_id: UUID) -> UUID:
        self._run_ids.append(run_id)
        return run_id
