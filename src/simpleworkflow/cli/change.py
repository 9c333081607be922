"""``wf run cancel`` and ``wf run reopen``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from simpleworkflow.cli.arguments import RunId
from simpleworkflow.cli.bulk import Filter, filter_options, operate
from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.output import json_option, print_changes
from simpleworkflow.cli.session import database_option, open_client
from simpleworkflow.model import ATTEMPTS_MAX, ENDED

if TYPE_CHECKING:
    from simpleworkflow.client import Client

_MANY = click.argument("run_ids", metavar="[ID...]", type=RunId(), nargs=-1)
_REASON = click.option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")


@click.command(epilog="Example: wf run cancel 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00 --reason 'ordered twice'")
@_MANY
@filter_options("cancel")
@_REASON
@json_option
@database_option
def cancel(*, run_ids: Sequence[UUID], reason: str | None, as_json: bool, **filtered: Any) -> None:
    """Cancel runs, or all that match; one that a worker executes is stopped by it soon after.

    A run that is cancelled already is fine; for one that succeeded or failed the exit code is 1.

    With --pattern all runs that match and have not ended are cancelled, in small steps: an operation, which goes on
    without this command, and which wf operation shows and stops. It needs a --reason.
    """
    wanted = Filter(**filtered)
    wanted.refuse_without_pattern(run_ids)
    if wanted.patterns:
        operate("cancel", wanted, reason=reason, as_json=as_json)
        return
    with open_client() as client:
        changes = _change(client, run_ids, lambda run_id: client.cancel(run_id, reason=reason))
    print_changes(changes, as_json=as_json)
    if any(now != "cancelled" for _, now in changes.values()):
        raise click.exceptions.Exit(ExitCode.NO)


@click.command(epilog="Example: wf run reopen 01926f0e-7d3c-7b1a-9c4e-5a7d3f2b1c00 --attempts 5")
@_MANY
@filter_options("reopen")
@click.option(
    "--attempts", type=click.IntRange(1, ATTEMPTS_MAX), default=3, show_default=True, help="The new budget."
)
@_REASON
@json_option
@database_option
def reopen(
    *, run_ids: Sequence[UUID], attempts: int, reason: str | None, as_json: bool, **filtered: Any
) -> None:
    """Give failed or cancelled runs new attempts, due now; also called retry.

    A run that has not ended is fine; for one that succeeded the exit code is 1.

    With --pattern all runs that match and have failed or been cancelled by now are reopened, in small steps: an
    operation, which goes on without this command, and which wf operation shows and stops. It needs a --reason.
    """
    wanted = Filter(**filtered)
    wanted.refuse_without_pattern(run_ids)
    if wanted.patterns:
        operate("reopen", wanted, reason=reason, attempts=attempts, as_json=as_json)
        return
    with open_client() as client:
        changes = _change(
            client, run_ids, lambda run_id: client.reopen(run_id, attempts=attempts, reason=reason)
        )
    print_changes(changes, as_json=as_json)
    if any(not changed and now in ENDED for changed, now in changes.values()):
        raise click.exceptions.Exit(ExitCode.NO)


def _change(
    client: Client, run_ids: Sequence[UUID], change: Callable[[UUID], bool]
) -> dict[UUID, tuple[bool, str]]:
    """Change each run; return whether it was changed, and its status afterwards."""
    # First look whether all of them exist: a typing mistake in the second id leaves the first alone.
    for run_id in run_ids:
        client.get(run_id)
    return {run_id: (change(run_id), client.get(run_id).status) for run_id in dict.fromkeys(run_ids)}
