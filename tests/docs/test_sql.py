"""The SQL of the documentation runs, in psql."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builders import Database, submit
from docs.pages import Block, blocks, name_of, pages_with
from docs.serving import environment
from simpleworkflow.cli.psql import find_psql
from simpleworkflow.dburl import parse

_ROLES = "roles"
_PAGES = [page for page in pages_with("sql") if any(block.note != _ROLES for block in blocks(page, "sql"))]


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_the_sql_of_a_page_does_what_the_page_says(page: Path, db: Database, database_url: str) -> None:
    script = "\n".join(
        _as_script(block, submit(db, "example.v1")) for block in blocks(page, "sql") if block.note != _ROLES
    )

    ended = subprocess.run(
        [find_psql(), "-X", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", parse(database_url).portable],
        input=script,
        env=environment(database_url) | {"PAGER": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    unwanted = [line for line in ended.stdout.splitlines() if line.startswith("not refused: ")]
    assert not unwanted


def _as_script(block: Block, run_id: str) -> str:
    """Return a block for psql; ``<id>`` becomes the id of a pending run of the block's own."""
    text = f"\\echo {block.where}\n" + block.text.replace("<id>", run_id)
    if not block.note:
        return text
    word, state = block.note.split()
    assert word == "refused", f"{block.where}: what does {block.note!r} mean?"
    return (
        f"\\set ON_ERROR_STOP 0\n{text}\n\\set ON_ERROR_STOP 1\n"
        f"select :'LAST_ERROR_SQLSTATE' <> '{state}' as is_wrong \\gset\n"
        f"\\if :is_wrong\n\\echo not refused: {block.where}\n\\endif\n"
    )
