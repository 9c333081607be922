"""One worker process under a supervisor, which extends its leases and starts it again should it die."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from simpleworkflow.errors import NotPermitted, SchemaMismatch, WorkerNotFound, WorkflowError
from simpleworkflow.logs import attempting, configure_logging
from simpleworkflow.maintenance import Board
from simpleworkflow.metrics import Tally
from simpleworkflow.resolve import Database
from simpleworkflow.worker import failpoints
from simpleworkflow.worker.lifeline import GO, HURRY, STOP, hear, read_order
from simpleworkflow.worker.process import Plan, WorkerProcess
from simpleworkflow.worker.slots import SlotTable
from simpleworkflow.worker.target import load_worker

__all__ = ["work_for_supervisor"]

ORPHAN_SECONDS = 1.5

logger = logging.getLogger("simpleworkflow.worker")


def work_for_supervisor(lifeline: int, table_fd: int, board_fd: int = -1) -> NoReturn:
    """Do what the supervisor at the other end of the lifeline orders, and exit."""
    order = read_order(lifeline)
    configure_logging(order["log_level"], order["log_format"])
    asyncio.run(_work_and_exit(order, lifeline, SlotTable(table_fd), Board(board_fd)))
    raise AssertionError("a worker process exits by itself")


async def _work_and_exit(order: dict[str, Any], lifeline: int, table: SlotTable, board: Board) -> None:
    code = await _work(order, lifeline, table, board)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    # Not by returning: whatever still hangs in a thread, or swallows its cancellation, shall not keep the process.
    os._exit(code)


async def _work(order: dict[str, Any], lifeline: int, table: SlotTable, board: Board) -> int:
    try:
        plan = _load(order)
        failpoints.hit("starting")
        database = Database(**order["database"])
        tally = None if order["tally_fd"] is None else Tally(order["tally_fd"])
        process = WorkerProcess(
            plan,
            database,
            table,
            order["worker_id"],
            is_child=True,
            board=board,
            tally=tally,
            around=[attempting] if order["log_format"] == "json" else [],
        )
        may_go = _follow_supervisor(lifeline, process)
        if order["is_spare"]:
            await may_go.wait()
        await process.run()
    except (WorkerNotFound, SchemaMismatch, NotPermitted) as error:
        table.give_up(error.exit_code, str(error))  # starting again would not help against these
        return error.exit_code
    except WorkflowError as error:
        logger.error("the worker ends: %s", error)
        return 1
    except BaseException:  # whatever it is, the process exits; it is started again
        logger.exception("the worker ends")
        return 1
    return 0


def _load(order: dict[str, Any]) -> Plan:
    worker = load_worker(order["target"])
    try:
        return worker.plan(concurrency=order["concurrency"])
    except (TypeError, ValueError) as error:
        raise WorkerNotFound(f"worker {order['target']!r}: {error}") from error


def _follow_supervisor(lifeline: int, process: WorkerProcess) -> asyncio.Event:
    """Give everything back at once when the supervisor says so; end when it has gone: nobody extends our leases.

    The event is set when a spare may go.
    """
    loop, may_go = asyncio.get_running_loop(), asyncio.Event()

    def follow() -> None:
        for word in hear(lifeline):
            if GO in word:
                loop.call_soon_threadsafe(may_go.set)
            if STOP in word:
                loop.call_soon_threadsafe(process.stop_gracefully)
            if HURRY in word:
                loop.call_soon_threadsafe(process.hurry)
        logger.error("the supervisor is gone; giving all runs back")
        loop.call_soon_threadsafe(process.hurry)
        # Not time.sleep(): it waits for a point in time, and raises where a clock is shifted under it.
        select.select([], [], [], ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=follow, name="lifeline", daemon=True).start()
    return may_go
