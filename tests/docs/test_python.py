"""The Python of the documentation runs."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from inspect import isawaitable
from pathlib import Path
from typing import Any

import pytest

from builders import Database
from docs.pages import PAGES, Block, blocks, name_of, pages_with
from docs.serving import environment, served

PROGRAM_SECONDS_MAX = 60

_PYTHON = [block for page in PAGES for block in blocks(page, "python")]
_SESSIONS = [
    page
    for page in pages_with("python")
    if any(not block.program and block.note != "fragment" for block in blocks(page, "python"))
]
_PROGRAMS = [page for page in pages_with("python") if any(block.program for block in blocks(page, "python"))]


@pytest.mark.parametrize("block", _PYTHON, ids=lambda block: block.where)
def test_every_python_block_compiles(block: Block) -> None:
    assert block.note in ("", "fragment"), f"{block.where}: what does {block.note!r} mean?"
    _compile(block)


@pytest.mark.parametrize("page", _PROGRAMS, ids=name_of)
def test_the_programs_of_a_page_do_what_the_page_says(page: Path, database_url: str, tmp_path: Path) -> None:
    programs = {block.program: block.text for block in blocks(page, "python") if block.program}
    for name, text in programs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    workers = [Path(name).stem for name, text in programs.items() if "\nworker = Worker(" in text]

    with ExitStack() as stack:
        for module in workers:
            stack.enter_context(served(f"{module}:worker", tmp_path, database_url))
        ended = {
            name: _run(tmp_path / name, database_url) for name in programs if Path(name).stem not in workers
        }

    assert {name: done.stderr for name, done in ended.items() if done.returncode} == {}


@pytest.mark.parametrize("page", _SESSIONS, ids=name_of)
def test_the_pieces_of_a_page_run_one_after_the_other(
    page: Path, db: Database, database_url: str, session_environment: dict[str, Any]
) -> None:
    with served("echo_app:worker", Path(__file__).parent, database_url):
        for block in blocks(page, "python"):
            if not block.program and block.note != "fragment":
                _execute(block, session_environment)


@pytest.fixture
def session_environment(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What a page may take for granted: DATABASE_URL, and a table ``orders`` of the application's own."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    db.execute("create table orders (id text primary key)")
    names: dict[str, Any] = {"__name__": "page", "url": db.info.dsn + f" password={db.info.password}"}
    yield names
    for value in names.values():
        if type(value).__name__ == "Client":
            value.close()


def _compile(block: Block) -> Any:
    # Padded, so that an error names the line in the page.
    source = "\n" * (block.line - 1) + block.text
    return compile(source, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def _execute(block: Block, names: dict[str, Any]) -> None:
    answer = eval(_compile(block), names)
    if isawaitable(answer):
        asyncio.run(answer)  # type: ignore[arg-type]


def _run(program: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, program],
        cwd=program.parent,
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS_MAX,
        check=False,
    )
