"""The program ``wf``: the table of its commands, each imported only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from simpleworkflow.cli.exits import EXIT_CODES_HELP
from simpleworkflow.cli.session import State, database_option


class PipeClosed(Exception):
    """The reader of our output has gone; there is nobody left to tell."""


class Lazy(NamedTuple):
    """A command that is not imported yet: where it is, and its line in the list of commands."""

    module: str
    name: str
    help: str


class LazyGroup(click.Group):
    """Commands that are imported when they are called, so that ``wf --help`` stays fast."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **options: Any) -> None:
        super().__init__(*args, **options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        lazy = self._lazy.get(cmd_name)
        if lazy is None:
            return None
        command: click.Command = getattr(import_module(f"simpleworkflow.cli.{lazy.module}"), lazy.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self._lazy.items()])


class Program(LazyGroup):
    """The root: tells a closed pipe apart before click turns it into a failure."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; ``wf worker list`` is one beside ``wf worker MODULE:WORKER``."""
        if (pair := " ".join(args[:2])) in PAIRS:
            lazy = PAIRS[pair]
            return pair, getattr(import_module(f"simpleworkflow.cli.{lazy.module}"), lazy.name), args[2:]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise PipeClosed from None


COMMANDS = {
    "demo": Lazy("demo", "demo", "Watch real runs recorded, retried, cancelled, recovered."),
    "dev": Lazy("dev", "dev", "Run a worker while you write it: database, reload, dashboard."),
    "submit": Lazy("submit", "submit", "Record a run, and wait for it if asked."),
    "run": Lazy("run", "run", "List, show, cancel, reopen and watch runs."),
    "operation": Lazy("operation", "operation", "See and stop what changes many runs at once."),
    "top": Lazy("top", "top", "Watch what runs, waits and failed; steer it with keys."),
    "type": Lazy("type", "type_", "Say what types keep: events, succeeded runs."),
    "why": Lazy("why", "why", "Say why a run is not running, and what to do about it."),
    "worker": Lazy("worker", "worker", "Run the worker of a module; wf worker list: who works."),
    "server": Lazy("server", "server", "Serve the REST API and the dashboard."),
    "migrate": Lazy("migrate", "migrate", "Bring the schema up to date; check it; print the SQL."),
    "verify": Lazy("verify", "verify", "Check that runs and events keep the promises."),
    "prune": Lazy("prune", "prune", "Delete runs that ended long ago."),
    "doctor": Lazy("doctor", "doctor", "Examine the installation; name what is wrong, and the remedy."),
    "psql": Lazy("psql", "psql", "Open psql on the workflow tables."),
    "url": Lazy("url", "url", "Print the database URL that every driver takes."),
    "config": Lazy("config", "config", "Show each setting and where it comes from."),
}

PAIRS = {"worker list": Lazy("workers", "list_", "List the workers.")}

EPILOG = f"""\b
Examples:
  wf demo
  wf submit billing.invoice.v1 '{{"invoice_id": "INV-001"}}'
  wf run list --type 'billing.%' --status failed
  wf psql -c "SELECT id, type, status FROM workflow_run"

{EXIT_CODES_HELP}
\b
The database is DATABASE_URL, else libpq's PG* variables, else the embedded
PostgreSQL of this project folder; see wf config.
"""


@click.group(
    cls=Program,
    lazy=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.option(
    "--debug",
    is_flag=True,
    envvar="WF_TRACEBACK",
    help="Show the traceback of an error; WF_TRACEBACK=1 does too.",
)
@database_option
@click.version_option(
    None, "-V", "--version", package_name="simpleworkflow", message="simpleworkflow %(version)s"
)
@click.pass_obj
def program(state: State, *, debug: bool) -> None:
    """Durable workflows on PostgreSQL: insert a row, a worker runs it."""
    state.debug = debug
