"""The source of the package, read for the house rules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "simpleworkflow"
MODULES = sorted(PACKAGE.rglob("*.py"))

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Prose begins with a capital letter; SQL is lower-case in code, and upper-case where people are shown it.
_VERBS = "select|insert into|update|delete from|create|alter|drop|with|set|listen|grant|truncate|do [$]"
_SQL = re.compile(rf"\s*(?:{_VERBS}|{_VERBS.upper()})\s")


class Text(NamedTuple):
    """A string in a module: its line and what it says, ``{}`` for what is filled in."""

    line: int
    text: str


def name_of(module: Path) -> str:
    """Return how a module is called in a message: its path in the package."""
    return str(module.relative_to(PACKAGE))


def parsed(module: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(module.read_text(encoding="utf-8"))


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module, nested ones too."""
    return (node for node in ast.walk(parsed(module)) if isinstance(node, _FUNCTIONS))


def public_definitions(module: Path) -> Iterator[tuple[str, Definition]]:
    """Yield the public functions, classes and methods of a module, with their dotted names."""
    yield from _public(parsed(module).body, "")


def _public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Definition]]:
    for node in body:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{prefix}{node.name}.")


def is_stub(node: Definition) -> bool:
    """Return whether a function only says its signature, as in a protocol."""
    return isinstance(node.body[-1], ast.Expr) and getattr(node.body[-1].value, "value", None) is ...


def sql_in(module: Path) -> list[Text]:
    """Return the strings of a module that are SQL."""
    return [one for one in _strings(parsed(module)) if _SQL.match(one.text)]


def _strings(tree: ast.Module) -> Iterator[Text]:
    pieces = {
        id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            yield Text(node.lineno, node.value)
        elif isinstance(node, ast.JoinedStr):
            yield Text(
                node.lineno, "".join(getattr(value, "value", "{}") for value in map(_plain, node.values))
            )


def _plain(node: ast.expr) -> ast.expr:
    return node if isinstance(node, ast.Constant) else ast.Constant("{}")
