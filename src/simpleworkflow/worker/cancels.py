"""What is said about cancelled runs, checked: whoever may connect to the database can say it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from simpleworkflow.statements import heartbeat_runs
from simpleworkflow.worker.execution import Execution
from simpleworkflow.worker.slots import Verdict

if TYPE_CHECKING:
    from simpleworkflow.worker.engine import Engine

__all__ = ["Cancels"]

logger = logging.getLogger("simpleworkflow.worker")

# A heartbeat never shortens a lease, so this one only asks.
NO_SECONDS = 0.001
# After a false word; so that a flood of them costs ten statements a second, and a true one still comes in time.
FALSE_ALARM_SECONDS = 0.1


class Cancels:
    """Asks the database about each run of ours that is said to be cancelled, and tells its handler if it is."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._heard: dict[tuple[str, int], Execution] = {}
        self._is_any = asyncio.Event()

    def heard(self, run_id: str, fencing_token: int) -> None:
        """Take note that this attempt is said to be cancelled; of one that is not here there is nothing to do.

        A run that was reopened and claimed again meanwhile has another token: it goes on.
        """
        execution = self._engine.find(run_id, fencing_token)
        if execution is not None:
            self._heard[run_id, fencing_token] = execution
            self._is_any.set()

    async def run(self) -> None:
        """Check what is heard until cancelled."""
        while True:
            await self._is_any.wait()
            self._is_any.clear()
            heard, self._heard = self._heard, {}
            if not await self._check(heard):
                await asyncio.sleep(FALSE_ALARM_SECONDS)

    async def _check(self, heard: dict[tuple[str, int], Execution]) -> bool:
        """Return whether all of it was true."""
        asking = heartbeat_runs(self._engine.worker_id, sorted(heard), seconds=NO_SECONDS)
        try:
            states = await self._engine.side.ask(asking)
        except Exception as error:  # noqa: BLE001 - the next heartbeat tells all the same
            logger.debug("what was said of cancelled runs could not be checked: %s", error)
            return False
        for (run_id, _), execution in heard.items():
            if states.get(run_id) == "cancelled":
                self._engine.tell(execution, Verdict.CANCELLED)
        return all(states.get(run_id) == "cancelled" for run_id, _ in heard)
