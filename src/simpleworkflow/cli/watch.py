"""``wf run watch``: the events of runs as they happen."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from simpleworkflow import database as runner
from simpleworkflow.cli.arguments import RunId
from simpleworkflow.cli.output import event_document, json_option, print_json
from simpleworkflow.cli.session import database_option, open_connection
from simpleworkflow.database import Statement
from simpleworkflow.errors import RunNotFound
from simpleworkflow.statements import get_runs, list_events

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

POLL_SECONDS = 0.2


@click.command(epilog="Example: wf run watch 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00")
@click.argument("run_ids", metavar="ID...", type=RunId(), nargs=-1, required=True)
@click.option(
    "--follow/--no-follow", default=True, show_default=True, help="Wait for more until the runs end."
)
@json_option
@database_option
def watch(*, run_ids: Sequence[UUID], follow: bool, as_json: bool) -> None:
    """Print the events of runs, those of the past and then each as it happens, until all have ended.

    With --json, one line for each event.
    """
    with open_connection() as (connection, database):
        watcher = Watcher(connection, database.schema, run_ids, as_json=as_json)
        while watcher.look() and follow:
            time.sleep(POLL_SECONDS)


class Watcher:
    """Prints the events of some runs, each once."""

    def __init__(
        self, connection: psycopg.Connection[Any], schema: str, run_ids: Sequence[UUID], *, as_json: bool
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._last_seen = dict.fromkeys(run_ids, 0)  # of the runs that have not ended
        self._as_json = as_json
        self._with_run = len(self._last_seen) > 1
        self._has_looked = False

    def look(self) -> bool:
        """Print what is new; return whether a run is left that has not ended.

        Raises:
            RunNotFound: one of them does not exist.
        """
        # The runs first: the events read after them contain the one that ended a run.
        runs = {run.id: run for run in self._ask(get_runs(list(self._last_seen)))}
        for run_id in list(self._last_seen):
            if run_id not in runs:
                raise RunNotFound(run_id, was_awaited=self._has_looked)
            self._print_new(run_id)
            if runs[run_id].has_ended:
                del self._last_seen[run_id]
        self._has_looked = True
        sys.stdout.flush()
        return bool(self._last_seen)

    def _print_new(self, run_id: UUID) -> None:
        from simpleworkflow.cli.timeline import print_event_line

        for event in self._ask(list_events(run_id, after=self._last_seen[run_id])):
            self._last_seen[run_id] = event.id
            if self._as_json:
                print_json(event_document(event), is_compact=True)
            else:
                print_event_line(event, with_run=self._with_run)

    def _ask(self, statement: Statement[T]) -> T:
        return runner.run(self._connection, statement, self._schema)
