"""Ending the runs of a batch that failed as a whole, so that one run costs no other anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import psycopg

from simpleworkflow.database import first_line
from simpleworkflow.errors import DatabaseUnavailable, InvalidInput
from simpleworkflow.metrics import Tally
from simpleworkflow.statements import Finished, finish_runs, heartbeat_runs, release_runs
from simpleworkflow.worker.link import Link

__all__ = ["LOCKED_SECONDS", "find_locked", "finish_singly", "give_back"]

# Whether somebody's transaction still holds a row of ours locked is looked so often: soon enough that it is ours again
# before others find that its lease has lapsed.
LOCKED_SECONDS = 0.2

logger = logging.getLogger("simpleworkflow.worker")


async def find_locked(
    link: Link, worker_id: str, held: Sequence[tuple[str, int]], *, lease_seconds: float
) -> set[str]:
    """Return which of these runs have rows that somebody's transaction holds; extend the leases of the others.

    Raises:
        DatabaseUnavailable: there was no answer.
    """
    newest = dict(sorted(held))  # of two attempts of a run the older one is over
    states = await link.ask(heartbeat_runs(worker_id, list(newest.items()), seconds=lease_seconds))
    return {run_id for run_id, state in states.items() if state == "locked"}


async def give_back(
    link: Link, worker_id: str, held: Sequence[tuple[str, int]], *, lease_seconds: float
) -> None:
    """Release runs untried, however long that takes; none of them waits for the locked row of another.

    Raises:
        WorkflowError: the database refused it.
    """
    while held:
        try:
            locked = await find_locked(link, worker_id, held, lease_seconds=lease_seconds)
            if free := [one for one in held if one[0] not in locked]:
                await link.ask(release_runs(worker_id, free))
        except DatabaseUnavailable:
            await link.pause()
            continue
        held = [one for one in held if one[0] in locked]
        if held:
            await asyncio.sleep(LOCKED_SECONDS)


async def finish_singly(
    link: Link, worker_id: str, batch: Sequence[Finished], tally: Tally | None = None
) -> list[Finished]:
    """Finish each run by itself; one whose outcome cannot be stored fails.  Return what is left when no answer comes.

    What is refused for another reason stays leased and comes back when its lease ends: the run may have
    succeeded, and nobody shall read that it failed.
    """
    for position, one in enumerate(batch):
        error = await _finish(link, worker_id, one, tally)
        if isinstance(error, InvalidInput | psycopg.DataError | psycopg.IntegrityError):
            reason = f"the outcome cannot be stored: {error}"
            failed = one._replace(status="failed", result=None, error=reason, delay_seconds=None)
            error = await _finish(link, worker_id, failed, tally)
        if isinstance(error, DatabaseUnavailable):
            return list(batch[position:])
        if error is not None:
            reason = first_line(error)
            logger.error(
                "run %s: its outcome was refused; it comes back when its lease ends: %s",
                one.id,
                reason,
                extra={"run_id": one.id, "type": one.type},
            )
    return []


async def _finish(link: Link, worker_id: str, one: Finished, tally: Tally | None) -> Exception | None:
    try:
        held = await link.ask(finish_runs(worker_id, [one]))
        if tally is not None:
            tally.count_finished([one], refused=() if one.id in held else (one.id,))
    except Exception as error:  # noqa: BLE001 - the others of the batch are finished all the same
        return error
    return None
