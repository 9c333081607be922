"""``wf prune``: delete runs that ended long ago."""

from __future__ import annotations

import math
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
@click.option("--dry-run", is_flag=True, help="Only count them, the first 10,000 at least.")
@click.option("--exact", is_flag=True, help="With --dry-run: count them all.")
@json_option
@database_option
def prune(
    *,
    older_than: float,
    patterns: Sequence[str],
    statuses: Sequence[Status],
    limit: int | None,
    dry_run: bool,
    exact: bool,
    as_json: bool,
) -> None:
    """Delete runs that ended long ago, and their events.

    A run that has not ended is never touched. The idempotency keys of pruned runs are free again.
    """
    if exact and not dry_run:
        raise click.UsageError("--exact is for --dry-run: it only counts")
    is_exact = True
    with open_client() as client:
        if dry_run and not exact:
            counted = client.count_prunable(older_than, pattern=patterns or None, status=statuses or None)
            is_exact = counted.is_exact or counted.runs >= (limit or math.inf)
            count = min(counted.runs, limit or counted.runs)
        else:
            count = client.prune(
                older_than, pattern=patterns or None, status=statuses or None, limit=limit, dry_run=dry_run
            )
    if as_json:
        print_json({"runs": count, "pruned": not dry_run} | ({} if is_exact else {"is_exact": False}))
        return
    what = f"{'' if is_exact else 'at least '}{'1 run' if count == 1 else f'{count} runs'}"
    click.echo(f"would prune {what}" if dry_run else f"pruned {what}")
    if not is_exact:
        from simpleworkflow.client.verbs import COUNTED_AT_ONCE

        click.echo(
            f"counted among the {COUNTED_AT_ONCE:,} that ended first; to count all, add --exact", err=True
        )
