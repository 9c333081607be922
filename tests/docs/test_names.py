"""The pages name what is there: public names, functions of the database, tests."""

from __future__ import annotations

import re

import simpleworkflow
from builders import Database
from docs.pages import PAGES, ROOT

# Functions that only the others call.
INNER = {
    *(
        "uuid7",
        "wake",
        "acting",
        "refuse_values",
        "refuse_delays",
        "refuse_count",
        "has_suspect_waiting",
        "cancel_for",
        "reopen_for",
        "walk_runs",
        "operation_filter",
        "change_runs",
        "left_of",
        "lock_in_lanes",
        "lock_due_runs",
        "lock_due_suspect",
        "bound_error",
        "prints_beyond_limit",
        "nests_beyond_limit",
        "fits",
        "readable_columns",
        "first_id_at",
        "few_ids",
        "write_policies",
        "replace_policy",
        "is_deleted_on_success",
        "delete_succeeded",
        "unfolded",
        "is_behind",
        "forget_rates",
        "rates_since",
        "check_window",
        "look_into_lanes",
        "sample_ended",
        "covers",
        "on_behalf_of",
        "worker_state",
        "say_seconds",
        "say_ago",
        "say_count",
        "say_error",
        "why_ended",
        "why_leased",
        "line_before",
        "why_in_line",
        "worker_not_entered",
        "why_no_worker",
        "why_paused",
        "why_locked",
        "why_pending",
    ),
    "default_backoff_seconds",
}


def test_every_public_name_is_on_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert [name for name in simpleworkflow.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_the_contract_names_every_function_with_its_arguments(db: Database) -> None:
    contract = (ROOT / "docs/sql-contract.md").read_text(encoding="utf-8")
    rows = db.execute(
        "select proname, proargnames[1:pronargs] from pg_proc"
        " where pronamespace = %s::regnamespace and prorettype <> 'trigger'::regtype",
        [db.schema],
    ).fetchall()

    missing = []
    for function, arguments in rows:
        found = re.search(rf"^{function}\(([^)]*)\)", contract, re.MULTILINE)
        if function in INNER:
            continue
        if found is None or re.findall(r"\bp_\w+", found[1]) != list(arguments or []):
            missing.append(f"{function}({', '.join(arguments or [])})")
    assert missing == []


def test_the_contract_names_every_column(db: Database) -> None:
    contract = (ROOT / "docs/sql-contract.md").read_text(encoding="utf-8")
    rows = db.execute(
        "select relname, attname from pg_attribute join pg_class on pg_class.oid = attrelid"
        " where relnamespace = %s::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped",
        [db.schema],
    ).fetchall()

    missing = [
        f"{table}.{column}"
        for table, column in rows
        if f"`{column}`" not in contract.partition(f"### {table}\n")[2].partition("\n##")[0]
    ]
    assert missing == []


def test_the_tests_that_hold_the_promises_exist() -> None:
    promises = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    named = re.findall(r"`(test_\w+)`", promises)
    assert [name for name in named if not re.search(rf"def {name}\b", tests)] == []
    assert [number for number in range(1, 13) if f"## P{number}." not in promises] == []
