"""``wf submit``: record a run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from simpleworkflow.cli.arguments import Duration, Moment, read_payload
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import json_option, print_json, run_document
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.model import ATTEMPTS_MAX, PRIORITY_MAX, PRIORITY_MIN

if TYPE_CHECKING:
    from simpleworkflow.model import Run

PRIORITY = click.IntRange(PRIORITY_MIN, PRIORITY_MAX)

EPILOG = """\b
Examples:
  wf submit billing.invoice.v1 '{"invoice_id": "INV-001"}' --key inv:001
  wf submit report.daily.v1 @report.json --delay 10m
  echo '{"n": 1}' | wf submit example.v1 - --wait
"""


@click.command(epilog=EPILOG)
@click.argument("type_", metavar="TYPE")
@click.argument("payload", metavar="[PAYLOAD | - | @FILE]", default="{}")
@click.option("--key", metavar="TEXT", help="Idempotency key: one key, one run.")
@click.option("--priority", type=PRIORITY, default=100, show_default=True, help="Lower runs first.")
@click.option(
    "--delay", metavar="DURATION", type=Duration(), help="Not before that much time: 30s, 5m, 2h, 1d."
)
@click.option("--run-at", metavar="TIME", type=Moment(), help="Not before this time, with its zone.")
@click.option(
    "--max-attempts",
    type=click.IntRange(1, ATTEMPTS_MAX),
    default=3,
    show_default=True,
    help="Attempts in all.",
)
@click.option("--wait", is_flag=True, help="Wait for its end; exit code 1 unless it succeeded.")
@click.option(
    "--timeout", metavar="DURATION", type=Duration(), help="With --wait: give up waiting after this."
)
@json_option
@database_option
def submit(
    *,
    type_: str,
    payload: str,
    key: str | None,
    priority: int,
    delay: float | None,
    run_at: datetime | None,
    max_attempts: int,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Record a run of TYPE; print its id.

    PAYLOAD is JSON, {} if left out; - reads it from stdin, @FILE from a file.
    """
    value = read_payload(payload)
    with open_client() as client:
        handle = client.submit(
            type_,
            value,
            idempotency_key=key,
            priority=priority,
            run_at=run_at,
            delay=delay or 0.0,
            max_attempts=max_attempts,
        )
        if not as_json:
            click.echo(handle.id)
        if not handle.created:
            click.echo(f"wf: the key {key!r} has this run already; no new one was made", err=True)
        ended = handle.wait(timeout=timeout) if wait else None
    if as_json:
        answer = {"id": handle.id, "created": handle.created}
        print_json(answer if ended is None else answer | {"run": run_document(ended)})
    if ended is not None:
        _tell_end(ended, as_json=as_json)


def _tell_end(run: Run, *, as_json: bool) -> None:
    from simpleworkflow.cli.timeline import print_run

    if not as_json:
        print_run(run)
    if run.status != "succeeded":
        raise click.exceptions.Exit(ExitCode.NO)
