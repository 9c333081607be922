"""What a database says is data: nothing imports, evaluates or unpickles it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from house.sources import MODULES, name_of, parsed

# Calls that make code of data, and the modules that may use them, with the reason.
MAKES_CODE = {
    "eval": {},
    "exec": {},
    "compile": {},
    "__import__": {},
    "run_module": {},
    "run_path": {},
    "import_module": {
        "__init__.py": "the package's own modules, imported when a public name is first asked for",
        "cli/program.py": "the commands, from a table in the source",
        "worker/target.py": "MODULE:WORKER, which the person who starts the worker names",
    },
    "loads": {
        "embedded/credentials.py": "JSON that the embedded server's owner wrote",
        "worker/lifeline.py": "JSON of the parent process",
        "worker/cpu.py": "pickles between a worker and its own processes, over a pipe that nobody else has",
    },
    "load": {},
    "Unpickler": {},
}
FOREIGN = {"marshal", "shelve", "dill", "cloudpickle", "yaml", "code", "codeop"}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_data_becomes_code(module: Path) -> None:
    tree = parsed(module)
    aliases = _aliases(tree)

    called = {
        aliases.get(name, name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (name := _name_of(node.func))
    }

    assert {name for name in called & MAKES_CODE.keys() if name_of(module) not in MAKES_CODE[name]} == set()
    assert _imported(tree) & FOREIGN == set()
    assert "pickle" not in _imported(tree) or name_of(module) == "worker/cpu.py"


def test_the_exceptions_are_still_needed() -> None:
    modules = {name_of(module): module.read_text(encoding="utf-8") for module in MODULES}

    unneeded = [
        f"{name}: {call}"
        for call, names in MAKES_CODE.items()
        for name in names
        if f"{call}(" not in modules.get(name, "")
    ]
    assert unneeded == []


def _name_of(function: ast.expr) -> str | None:
    """Return the last word of what is called; a method of ours, such as ``re.compile``, says whose it is."""
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute):
        is_pattern = isinstance(function.value, ast.Name) and (function.value.id, function.attr) == (
            "re",
            "compile",
        )
        return None if is_pattern else function.attr
    return None


def _aliases(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname: alias.name.rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
        if alias.asname
    }


def _imported(tree: ast.Module) -> set[str]:
    return {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
