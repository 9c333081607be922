"""One function for each operation: it returns a ``Statement`` that calls one SQL function.

Every value travels as text, number or array of them, cast in the SQL, so that psycopg and asyncpg take the
same parameters whatever codecs their user has set.
"""

from simpleworkflow.statements.counting import (
    fold_counts,
    list_pauses,
    list_types,
    look_due,
    pause_pattern,
    read_stats,
    recount_runs,
    resume_pattern,
)
from simpleworkflow.statements.operating import (
    Carried,
    Operable,
    carry_operation,
    count_operable,
    list_operations,
    operate,
    stop_operation,
)
from simpleworkflow.statements.policies import drop_policy, list_policies, set_policy
from simpleworkflow.statements.pruning import Counted, Pruned, count_prunable_runs, prune_runs
from simpleworkflow.statements.reading import (
    RunsFound,
    ended_runs,
    find_held,
    find_key,
    get_runs,
    list_events,
    list_page,
)
from simpleworkflow.statements.submitting import cancel_runs, reopen_runs, submit_run, submit_runs
from simpleworkflow.statements.verifying import Violation, verify
from simpleworkflow.statements.workers import (
    Introduction,
    beat_workers,
    end_workers,
    list_workers,
    register_worker,
    why,
)
from simpleworkflow.statements.working import (
    Claimed,
    Exchanged,
    Finished,
    exchange,
    expire_runs,
    finish_runs,
    get_traceparents,
    heartbeat_runs,
    next_lease_until,
    next_upkeep,
    record_progress,
    register_types,
    release_runs,
)

__all__ = [
    "Carried",
    "Claimed",
    "Counted",
    "Exchanged",
    "Finished",
    "Introduction",
    "Operable",
    "Pruned",
    "RunsFound",
    "Violation",
    "beat_workers",
    "cancel_runs",
    "carry_operation",
    "count_operable",
    "count_prunable_runs",
    "drop_policy",
    "end_workers",
    "ended_runs",
    "exchange",
    "expire_runs",
    "find_held",
    "find_key",
    "finish_runs",
    "fold_counts",
    "get_runs",
    "get_traceparents",
    "heartbeat_runs",
    "list_events",
    "list_operations",
    "list_page",
    "list_pauses",
    "list_policies",
    "list_types",
    "list_workers",
    "look_due",
    "next_lease_until",
    "next_upkeep",
    "operate",
    "pause_pattern",
    "prune_runs",
    "read_stats",
    "record_progress",
    "recount_runs",
    "register_types",
    "register_worker",
    "release_runs",
    "reopen_runs",
    "resume_pattern",
    "set_policy",
    "stop_operation",
    "submit_run",
    "submit_runs",
    "verify",
    "why",
]
