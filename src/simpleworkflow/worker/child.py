"""One worker process under a supervisor, which extends its leases and starts it again should it die."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any

from simpleworkflow.errors import SchemaMismatch, WorkerNotFound, WorkflowError
from simpleworkflow.resolve import Database
from simpleworkflow.worker.lifeline import read_order, watch_lifeline
from simpleworkflow.worker.process import WorkerProcess
from simpleworkflow.worker.slots import SlotTable
from simpleworkflow.worker.target import load_worker

__all__ = ["EXIT_NO_WORKER", "EXIT_SCHEMA", "work_for_supervisor"]

# Starting again would not help against these; the numbers are the command line's own.
EXIT_NO_WORKER = 2
EXIT_SCHEMA = 4
ORPHAN_SECONDS = 1.5


def work_for_supervisor(lifeline: int, table_fd: int) -> int:
    """Do what the supervisor at the other end of the lifeline orders; return the exit code."""
    order = read_order(lifeline)
    logging.basicConfig(level=order["log_level"], format=order["log_format"], stream=sys.stderr)
    try:
        asyncio.run(_work(order, lifeline, SlotTable(table_fd)))
        code = 0
    except WorkerNotFound as error:
        code = _say(error, EXIT_NO_WORKER)
    except (TypeError, ValueError) as error:
        code = _say(error, EXIT_NO_WORKER)
    except SchemaMismatch as error:
        code = _say(error, EXIT_SCHEMA)
    except WorkflowError as error:
        code = _say(error, 1)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: whatever still hangs in a thread shall not keep the process.
    os._exit(code)


async def _work(order: dict[str, Any], lifeline: int, table: SlotTable) -> None:
    plan = load_worker(order["target"]).plan(concurrency=order["concurrency"])
    process = WorkerProcess(plan, Database(**order["database"]), table, order["worker_id"])
    watching = asyncio.create_task(_stop_with_supervisor(lifeline, process))
    try:
        await process.run()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _stop_with_supervisor(lifeline: int, process: WorkerProcess) -> None:
    """Give everything back and end, when nobody extends our leases any more."""
    await watch_lifeline(lifeline)
    logging.getLogger("simpleworkflow.worker").error("the supervisor is gone; giving all runs back")
    deadline = threading.Timer(ORPHAN_SECONDS, os._exit, [1])
    deadline.daemon = True
    deadline.start()
    process.stop()
    process.stop()


def _say(error: Exception, code: int) -> int:
    print(f"wf: error: {error}", file=sys.stderr)  # noqa: T201 - this is a program's own last word
    return code
