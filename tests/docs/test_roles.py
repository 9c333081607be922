"""The grants that the contract shows are those that ``wf migrate`` makes; tests/sql/test_roles.py tries them."""

from __future__ import annotations

from docs.pages import ROOT, blocks
from simpleworkflow.grants import group_roles
from simpleworkflow.sql import GROUPS, load_script

CONTRACT = ROOT / "docs/sql-contract.md"


def test_the_page_shows_what_wf_migrate_grants() -> None:
    roles = dict(zip(GROUPS, group_roles("workflow"), strict=True)) | {"application": "app"}
    shown = [block.text for block in blocks(CONTRACT, "sql") if block.note == "roles"]

    assert shown == [_without_comments(group, role) for group, role in roles.items()]


def _without_comments(group: str, role: str) -> str:
    script = load_script(f"grants/{group}", schema="workflow", role=role)
    return "".join(line for line in script.splitlines(keepends=True) if not line.startswith("--"))
