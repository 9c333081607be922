"""The SQL floor: a bare loop over our own functions, finish and claim in one exchange, no handlers, no loop of ours."""

from __future__ import annotations

import sys
import time

import psycopg

from ours import TYPE, Producer, setup
from protocol import in_threads, main, started
from simpleworkflow.database import run
from simpleworkflow.statements import Finished, exchange

BATCH = 500  # what one exchanger of a worker with the default concurrency claims at once
POLL_SECONDS = 0.005


def work(url: str) -> None:
    """Drain over as many connections as the command line says, until the program is ended."""
    in_threads(int(sys.argv[1]), _drain, url)


def _drain(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        finished: list[Finished] = []
        lanes = "{}"
        while True:
            # It looks everywhere when there is nothing left where it was: so does a worker whose looks are cheap.
            statement = exchange(
                "floor",
                finished,
                [TYPE],
                limit=BATCH,
                lease_seconds=30,
                held=len(finished),
                lanes=lanes,
                is_look=not finished,
            )
            answer = run(conn, statement, "workflow")
            claimed, lanes = answer.claimed, answer.lanes or "{}"
            if claimed and claimed[0].payload != "{}":
                started({"i": 0})
            if not claimed and not finished:
                time.sleep(POLL_SECONDS)
            finished = sorted(Finished(one.id, one.fencing_token, "succeeded") for one in claimed)


if __name__ == "__main__":
    main(setup, Producer, work)
