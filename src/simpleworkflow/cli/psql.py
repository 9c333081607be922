"""``wf psql``: psql on the workflow tables."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from simpleworkflow.cli.session import database_option, open_database
from simpleworkflow.errors import EmbeddedPostgresError

_SERVICE = "simpleworkflow"

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
    shown, secrets = _without_secrets(database.conninfo if database.is_pooled else database.portable)
    with _service_of(shown, secrets) as (parameters, environment, descriptors):
        command = [find_psql(), "-d", make_conninfo("", **parameters), *arguments]
        raise click.exceptions.Exit(_run(command, os.environ | environment, descriptors))


def _without_secrets(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters of a URL that everybody may see, and those that nobody may."""
    from simpleworkflow.dburl import SECRETS

    parameters = {keyword: str(value) for keyword, value in conninfo_to_dict(url).items()}
    secrets = {keyword: value for keyword, value in parameters.items() if keyword in SECRETS}
    return {keyword: value for keyword, value in parameters.items() if keyword not in secrets}, secrets


@contextmanager
def _service_of(
    shown: dict[str, str], secrets: dict[str, str]
) -> Iterator[tuple[dict[str, str], dict[str, str], list[int]]]:
    """Hand secrets to psql past its command line, which everybody on the machine can read.

    For the password there is a variable.  For the others libpq has none: they go into a service file, which has no
    name and is gone with psql.
    """
    environment = {"PGPASSWORD": secrets["password"]} if "password" in secrets else {}
    others = {keyword: value for keyword, value in secrets.items() if keyword != "password"}
    if not others:
        yield shown, environment, []
        return
    if "service" in shown:
        raise click.ClickException(
            f"{', '.join(others)} cannot be given to psql beside service={shown['service']!r}; "
            "put it into that service's file"
        )
    with tempfile.TemporaryFile() as file:
        lines = [f"[{_SERVICE}]", *(f"{keyword}={value}" for keyword, value in others.items()), ""]
        file.write("\n".join(lines).encode())
        file.seek(0)
        named = {"PGSERVICEFILE": f"/dev/fd/{file.fileno()}"}
        yield shown | {"service": _SERVICE}, environment | named, [file.fileno()]


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


def _run(command: list[str], environment: dict[str, str], descriptors: Sequence[int]) -> int:
    """Run psql and wait: the embedded server lives only while a process of ours uses it."""
    with subprocess.Popen(command, env=environment, pass_fds=descriptors) as child:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's: it cancels the query
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, previous)
            if child.poll() is None:
                child.terminate()
    return code if code >= 0 else 128 - code
