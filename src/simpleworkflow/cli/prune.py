"""``wf prune``: delete runs that ended long ago."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from simpleworkflow.cli.arguments import Duration
from simpleworkflow.cli.output import json_option, print_json
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.model import ENDED, STATUSES

if TYPE_CHECKING:
    from simpleworkflow.model import Status


@click.command(epilog="Example: wf prune --older-than 30d --status succeeded --dry-run")
@click.option(
    "--older-than",
    metavar="DURATION",
    type=Duration(),
    required=True,
    help="How long ago a run must have ended: 12h, 30d.",
)
@click.option(
    "--type", "patterns", metavar="PATTERN", multiple=True, help="A type, or a prefix such as 'billing.%'."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status for status in STATUSES if status in ENDED]),
    multiple=True,
    help="Repeat it for several.",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many, the oldest first.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@json_option
@database_option
def prune(
    *,
    older_than: float,
    patterns: Sequence[str],
    statuses: Sequence[Status],
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete runs that ended long ago, and their events.

    A run that has not ended is never touched. The idempotency keys of pruned runs are free again.
    """
    with open_client() as client:
        count = client.prune(
            older_than, pattern=patterns or None, status=statuses or None, limit=limit, dry_run=dry_run
        )
    if as_json:
        print_json({"runs": count, "pruned": not dry_run})
    else:
        what = "1 run" if count == 1 else f"{count} runs"
        click.echo(f"would prune {what}" if dry_run else f"pruned {what}")
