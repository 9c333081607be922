"""The operator, a program: cancels runs while they execute or wait, reopens those that failed or were cancelled.

By the client, and by plain UPDATE as the contract shows it.  The ledger holds what was intended and what was told.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from chaos.ledger import Ledger
from simpleworkflow import Client, DatabaseUnavailable
from simpleworkflow.dburl import parse

URL = os.environ["DATABASE_URL"]
PAUSE_SECONDS = 0.25
PLAIN_CANCEL = (
    "update workflow_run set status = 'cancelled', updated_at = now()"
    " where id = %s and status in ('pending', 'leased') returning id"
)
# As producers give them: what is innocent meets many faults, what fails by itself shall end soon.
REOPEN_ATTEMPTS = {"succeeded": 30, "failed": 2}


class Operator:
    """Does one thing at a time and notes it."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(f"operator {seed} {os.getpid()}")
        self._ledger = Ledger(Path(os.environ["CHAOS_FOLDER"]) / "operator")
        self._client = Client(URL)
        self._conn: psycopg.Connection[Any] | None = None
        self.is_stopping = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "is_stopping", True))

    def work(self) -> None:
        while not self.is_stopping:
            time.sleep(PAUSE_SECONDS)
            try:
                status = self._chance.choice(["leased", "leased", "pending", "failed", "cancelled"])
                found = self._some(status)
            except psycopg.OperationalError:
                self._conn = None
                continue
            if found is not None:
                self._change("reopen" if status in ("failed", "cancelled") else "cancel", *found)

    def _some(self, status: str) -> tuple[str, str] | None:
        return (
            self._connection()
            .execute(
                "select id::text, payload ->> 'expect' from workflow_run where status = %s"
                " order by md5(id::text || %s) limit 1",
                [status, str(self._chance.random())],
            )
            .fetchone()
        )

    def _change(self, verb: str, run_id: str, expect: str) -> None:
        is_plain = verb == "cancel" and self._chance.random() < 0.3
        self._ledger.write("intend", verb=verb, run=run_id)
        try:
            if is_plain:
                changed = self._connection().execute(PLAIN_CANCEL, [run_id]).rowcount == 1
            elif verb == "cancel":
                changed = self._client.cancel(run_id, reason="by chance")
            else:
                changed = self._client.reopen(run_id, attempts=REOPEN_ATTEMPTS[expect], reason="by chance")
        except DatabaseUnavailable as error:
            word = "unknown" if "unknown" in str(error) else "failed"
            self._ledger.write(word, verb=verb, run=run_id, error=str(error)[:200])
        except psycopg.Error as error:
            is_lost = self._conn is None or self._conn.closed
            self._ledger.write(
                "unknown" if is_lost else "failed", verb=verb, run=run_id, error=str(error)[:200]
            )
        else:
            self._ledger.write("ok", verb=verb, run=run_id, changed=changed, is_plain=is_plain)

    def _connection(self) -> psycopg.Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(parse(URL).portable, autocommit=True, connect_timeout=5)
        return self._conn


if __name__ == "__main__":
    Operator(sys.argv[1]).work()
