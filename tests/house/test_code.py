"""How the code is written: small modules, documented names, SQL in its place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from house.sources import MODULES, PACKAGE, functions, is_stub, name_of, parsed, public_definitions, sql_in

LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# Where public names need no docstring of their own, and why.
UNDOCUMENTED = {
    "cli/": "commands are documented by their help, methods by click, scenes of the demo by their headings",
    "readers.py": "each reader is named after the annotation it reads; payload_reader documents them",
}

# Where SQL stands outside of the .sql files, and why.
SQL_ELSEWHERE = {
    "cli/demo_stage.py": "shows people the statements of the contract, as they would type them",
    "embedded/cluster.py": "sets the superuser's password in a cluster that has no schema yet",
    "embedded/server.py": "makes the role and the database, before there is a schema",
    "grants.py": "asks the catalogs about roles, which belong to no schema",
    "health/objects.py": "the remedies for what is missing, for people to run",
    "migrate.py": "its bookkeeping has to be there before the first migration",
    "notifier.py": "LISTEN, NOTIFY and session locks belong to a session and have no place in a function",
    "session.py": "the settings of a worker's session",
    "worker/link.py": "the lock of a worker's session",
}
# Statements that call no function of the schema: they are asked before it is known to be the right one.
NO_CALL = {"statements/checking.py"}
_CALL = re.compile(r"select [^;]*\{schema\}\.[a-z_]+\([^;]*\)[^;]*")
# Recording a run is an INSERT, by contract; the rules about it are the table's.
_RECORDING = re.compile(
    r"insert into \{schema\}\.workflow_run \([a-z_, ]+\) values \([^;]*\) returning id::text, true"
)
# What PostgreSQL reads the same way in every session, and what it does not read.
_COMMENT_OR_ESCAPED = re.compile(r"--.*|\bE'(?:[^'\\]|\\.)*'")
_MORE_THAN_A_CALL = re.compile(r"\b(insert|update|delete|join|where|union|order by)\b")


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_is_at_most_400_lines_and_its_functions_60(module: Path) -> None:
    lines = len(module.read_text(encoding="utf-8").splitlines())
    long = [
        f"{one.name}: {size} lines"
        for one in functions(module)
        if (size := (one.end_lineno or one.lineno) - one.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert lines <= LINES_MAX
    assert long == []


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_and_its_public_names_say_what_they_are(module: Path) -> None:
    undocumented = [
        name for name, node in public_definitions(module) if not (ast.get_docstring(node) or is_stub(node))
    ]

    assert ast.get_docstring(parsed(module)), "the module has no docstring"
    if not name_of(module).startswith(tuple(UNDOCUMENTED)):
        assert undocumented == []


def test_sql_stands_in_sql_files_and_statements_only() -> None:
    found = {name_of(module) for module in MODULES if sql_in(module)}

    assert {name for name in found if not name.startswith("statements/")} == set(SQL_ELSEWHERE)


def _is_a_call(text: str) -> bool:
    return bool(_CALL.fullmatch(text)) and not _MORE_THAN_A_CALL.search(text) and text.count("{schema}") == 1


@pytest.mark.parametrize(
    "module", [one for one in MODULES if name_of(one).startswith("statements/")], ids=name_of
)
def test_a_statement_is_one_call_of_a_function_or_records_a_run(module: Path) -> None:
    more = [
        f"line {one.line}: {one.text}"
        for one in sql_in(module)
        if not (_is_a_call(one.text) or _RECORDING.fullmatch(one.text))
    ]

    if name_of(module) not in NO_CALL:
        assert more == []


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.sql")), ids=name_of)
def test_no_literal_of_sql_holds_a_backslash_which_each_session_could_read_in_its_own_way(file: Path) -> None:
    lines = _COMMENT_OR_ESCAPED.sub("", file.read_text(encoding="utf-8")).splitlines()

    assert [line for line in lines if "\\" in line] == []
