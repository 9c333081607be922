"""What bounds a submit: single INSERTs into our own table, each its own commit, and COPY of the same rows."""

from __future__ import annotations

import json

import psycopg
from psycopg.types.json import Jsonb

from ours import TYPE, setup
from protocol import main


class Producer:
    """psycopg alone."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)

    def submit(self, payload: dict[str, int]) -> None:
        """INSERT one run."""
        self._conn.execute(
            "insert into workflow.workflow_run (type, payload) values (%s, %s)", [TYPE, Jsonb(payload)]
        )

    def bulk(self, payloads: list[dict[str, int]]) -> None:
        """COPY many runs."""
        with self._conn.cursor().copy("copy workflow.workflow_run (type, payload) from stdin") as copy:
            for payload in payloads:
                copy.write_row((TYPE, json.dumps(payload)))


def work(_url: str) -> None:
    """There is nothing to work on."""


if __name__ == "__main__":
    main(setup, Producer, work)
