"""Finishing the runs of a batch that was refused as a whole, so that one bad value ends one run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg

from simpleworkflow.database import first_line
from simpleworkflow.errors import InvalidInput
from simpleworkflow.metrics import Tally
from simpleworkflow.statements import Finished, finish_runs
from simpleworkflow.worker.link import Link

__all__ = ["finish_singly"]

logger = logging.getLogger("simpleworkflow.worker")


async def finish_singly(
    link: Link, worker_id: str, batch: Sequence[Finished], tally: Tally | None = None
) -> None:
    """Finish each run by itself; one whose outcome cannot be stored fails.

    What is refused for another reason stays leased and comes back when its lease ends: the run may have
    succeeded, and nobody shall read that it failed.
    """
    for one in batch:
        error = await _finish(link, worker_id, one, tally)
        if isinstance(error, InvalidInput | psycopg.DataError | psycopg.IntegrityError):
            reason = f"the outcome cannot be stored: {error}"
            failed = one._replace(status="failed", result=None, error=reason, delay_seconds=None)
            error = await _finish(link, worker_id, failed, tally)
        if error is not None:
            reason = first_line(error)
            logger.error(
                "run %s: its outcome was refused; it comes back when its lease ends: %s",
                one.id,
                reason,
                extra={"run_id": one.id, "type": one.type},
            )


async def _finish(link: Link, worker_id: str, one: Finished, tally: Tally | None) -> Exception | None:
    try:
        held = await link.ask_until_answered(finish_runs(worker_id, [one]))
        if tally is not None:
            tally.count_finished([one], refused=() if one.id in held else (one.id,))
    except Exception as error:  # noqa: BLE001 - the others of the batch are finished all the same
        return error
    return None
