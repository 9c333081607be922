"""What a schema should have, read from the checked dump ``sql/schema.sql``, against what it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from simpleworkflow.health.finding import Finding
from simpleworkflow.sql import load_script

_TABLE = re.compile(r"^CREATE TABLE workflow\.(\w+) \((.*?)^\)", re.MULTILINE | re.DOTALL)
_CHECK = re.compile(r"^ +CONSTRAINT (\w+) (.*?),?$", re.MULTILINE)
_CONSTRAINT = re.compile(r"^ALTER TABLE ONLY workflow\.(\w+)\s+ADD CONSTRAINT (\w+) [^;]*;", re.MULTILINE)
_INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX (\w+) ON [^;]*;", re.MULTILINE)
_TRIGGER = re.compile(r"^CREATE TRIGGER (\w+) .*? ON workflow\.(\w+) .*?;$", re.MULTILINE | re.DOTALL)
_FUNCTION = re.compile(r"^CREATE FUNCTION workflow\.(\w+)\(", re.MULTILINE)

_WHY = {
    "table": "everything that reads or writes it fails",
    "index": "what it serves reads the whole table instead",
    "constraint": "rows that break it are taken, and break what relies on it",
    "trigger": "changes pass unchecked, or leave no event",
    "function": "what calls it fails",
}
_FORMER_OWNER = (
    "knows a former owner of the table"  # the row guard names the owner, whose functions it lets pass
)
_WHY_FORMER = "each row that a claim or a finish writes is checked once more, which costs it a microsecond"


class _Object(NamedTuple):
    kind: str
    name: str
    table: str  # for tables, indexes and functions their own name
    sql: str | None  # what makes it anew, where that is one statement


def missing_objects(schema: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[Finding]:
    """Yield a finding for each object of the schema that is missing, switched off or invalid.

    ``rows`` are what there is: kind, name, table, and what is wrong with it or nothing; and the owner of the runs.
    """
    found = {(kind, name, table): wrong for kind, name, table, wrong in rows}
    owner = next((name for kind, name, _ in found if kind == "owner"), "owner")
    for one in _wanted(schema, owner):
        key = one.kind, one.name, one.name if one.kind == "index" else one.table
        wrong = found.get(key, "is missing")
        if wrong:
            where = f" on {one.table}" if one.kind in ("trigger", "constraint") else ""
            said = f"{one.kind} {one.name}{where} {wrong}"
            if wrong == _FORMER_OWNER:
                yield Finding("objects", "notice", said, _WHY_FORMER, _remedy(schema, one, wrong))
            else:
                yield Finding("objects", "error", said, _WHY[one.kind], _remedy(schema, one, wrong))


def _wanted(schema: str, owner: str) -> list[_Object]:
    # The dump is of a schema named workflow, which is part of the names of its tables, and of an owner named owner.
    dump = load_script("schema").replace("'owner'::name", f"{_literal(owner)}::name")
    tables = list(_TABLE.finditer(dump))
    objects = [_Object("table", table[1], table[1], None) for table in tables]
    objects += [
        _Object(
            "constraint",
            check[1],
            table[1],
            f"alter table workflow.{table[1]} add constraint {check[1]} {check[2]}",
        )
        for table in tables
        for check in _CHECK.finditer(table[2])
    ]
    objects += [_Object("constraint", one[2], one[1], one[0]) for one in _CONSTRAINT.finditer(dump)]
    objects += [_Object("index", one[1], one[1], one[0]) for one in _INDEX.finditer(dump)]
    objects += [_Object("trigger", one[1], one[2], one[0]) for one in _TRIGGER.finditer(dump)]
    objects += [_Object("function", name, name, None) for name in dict.fromkeys(_FUNCTION.findall(dump))]
    return [
        one._replace(sql=one.sql and " ".join(one.sql.replace("workflow.", f"{schema}.").rstrip(";").split()))
        for one in objects
    ]


def _remedy(schema: str, one: _Object, wrong: str) -> str:
    if wrong == "is switched off":
        return f"alter table {schema}.{one.table} enable trigger {one.name}"
    if wrong == _FORMER_OWNER:
        return (one.sql or "").replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1)
    if wrong == "is invalid":
        return f"reindex index concurrently {schema}.{one.name}"
    if wrong == "is not validated":
        return f"alter table {schema}.{one.table} validate constraint {one.name}"
    return one.sql or "restore it from a backup; `wf migrate --sql --from 0` prints how it was made"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
