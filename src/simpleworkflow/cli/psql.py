"""``wf psql``: psql on the workflow tables."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

import click

from simpleworkflow.cli.session import database_option, open_database
from simpleworkflow.errors import EmbeddedPostgresError

EPILOG = """\b
Examples:
  wf psql
  wf psql -c "SELECT id, type, status FROM workflow_run"
  wf psql -f report.sql --csv
"""


@click.command(
    epilog=EPILOG,
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["--help"],
    },
)
@click.argument("arguments", metavar="[PSQL ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@database_option
def psql(*, arguments: Sequence[str]) -> None:
    """Open psql with the search path set to the workflow tables; its exit code is ours."""
    database = open_database()
    url, password = _without_password(database.conninfo if database.is_pooled else database.portable)
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    raise click.exceptions.Exit(_run([find_psql(), "-d", url, *arguments], environment))


def _without_password(url: str) -> tuple[str, str | None]:
    """Take the password out of a URL: everybody on the machine can read a command line."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    parameters = conninfo_to_dict(url)
    password = parameters.pop("password", None)
    return make_conninfo("", **parameters), None if password is None else str(password)


def find_psql() -> str:
    """Return the psql on PATH, else the one that came with the embedded PostgreSQL."""
    from simpleworkflow.embedded import find_binaries

    on_path = shutil.which("psql")
    if on_path is not None:
        return on_path
    try:
        beside_server = find_binaries() / "psql"
    except EmbeddedPostgresError:
        beside_server = None
    if beside_server is None or not beside_server.is_file():
        raise click.ClickException(
            "psql is not installed; install postgresql-client, or simpleworkflow[embedded]"
        )
    return str(beside_server)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run psql and wait: the embedded server lives only while a process of ours uses it."""
    with subprocess.Popen(command, env=environment) as child:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's: it cancels the query
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, previous)
            if child.poll() is None:
                child.terminate()
    return code if code >= 0 else 128 - code
