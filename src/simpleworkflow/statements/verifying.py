"""Whether the tables keep the promises."""

from __future__ import annotations

from typing import NamedTuple

from simpleworkflow.database import Rows, Statement


class Violation(NamedTuple):
    """A law that a run breaks: the law in words, the run's id, and what was found."""

    law: str
    run_id: str | None
    found: str


def verify(slack_seconds: float) -> Statement[list[Violation]]:
    """Return every violation; an expired lease is one after ``slack_seconds``."""
    return Statement(
        "select law, run_id::text, found from {schema}.verify(%s::double precision)",
        (slack_seconds,),
        _read_violations,
        is_repeatable=True,
    )


def _read_violations(rows: Rows) -> list[Violation]:
    return [Violation(*row) for row in rows]
