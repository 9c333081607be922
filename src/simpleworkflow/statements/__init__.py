"""One function for each operation: it returns a ``Statement`` that calls one SQL function.

Every value travels as text, number or array of them, cast in the SQL, so that psycopg and asyncpg take the
same parameters whatever codecs their user has set.
"""

from simpleworkflow.statements.pruning import Pruned, count_prunable_runs, prune_runs
from simpleworkflow.statements.reading import ended_runs, get_runs, list_events, list_runs
from simpleworkflow.statements.submitting import cancel_runs, reopen_runs, submit_run, submit_runs
from simpleworkflow.statements.verifying import Violation, verify
from simpleworkflow.statements.working import (
    Claimed,
    Exchanged,
    Finished,
    exchange,
    expire_runs,
    finish_runs,
    heartbeat_runs,
    next_lease_until,
    record_progress,
    register_types,
    release_runs,
)

__all__ = [
    "Claimed",
    "Exchanged",
    "Finished",
    "Pruned",
    "Violation",
    "cancel_runs",
    "count_prunable_runs",
    "ended_runs",
    "exchange",
    "expire_runs",
    "finish_runs",
    "get_runs",
    "heartbeat_runs",
    "list_events",
    "list_runs",
    "next_lease_until",
    "prune_runs",
    "record_progress",
    "register_types",
    "release_runs",
    "reopen_runs",
    "submit_run",
    "submit_runs",
    "verify",
]
