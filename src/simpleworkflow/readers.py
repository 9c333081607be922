"""The small functions that read one value of a payload each; payloads.py puts them together.

Each takes the decoded value and the path to it, and returns what it stands for or raises
``PayloadMismatch`` naming that path.  Pydantic and msgspec are never imported here.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections import abc
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

from simpleworkflow.errors import PayloadMismatch
from simpleworkflow.plain import path_text

Path = tuple[str | int, ...]
Reader = Callable[[Any, Path], Any]


def missing(path: Path) -> PayloadMismatch:
    return PayloadMismatch(f"{path_text('payload', list(path))}: expected a value, got none")


def misfit(path: Path, expected: str, value: object) -> PayloadMismatch:
    return PayloadMismatch(f"{path_text('payload', list(path))}: expected {expected}, got {_shown(value)}")


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"str {value[:60]!a}{'…' if len(value) > 60 else ''}"
    if isinstance(value, int | float) and abs(value) < 1e18:
        return f"{type(value).__name__} {value!r}"
    return type(value).__name__


# ── JSON's own types and those written as text ─────────────────────────────────────────────────────


def read_anything(value: Any, _path: Path) -> Any:
    return value


def _exactly(kind: type, name: str) -> Reader:
    def read(value: Any, path: Path) -> Any:
        if type(value) is not kind:
            raise misfit(path, name, value)
        return value

    return read


def _read_tuple(value: Any, path: Path) -> tuple[Any, ...]:
    if type(value) is not list:
        raise misfit(path, "array", value)
    return tuple(value)


def _read_float(value: Any, path: Path) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise misfit(path, "float", value) from None
    raise misfit(path, "float", value)


def _read_datetime(value: Any, path: Path) -> datetime:
    expected = "datetime in ISO 8601 with a time zone"
    moment: datetime = _from_text(datetime.fromisoformat, expected)(value, path)
    if moment.utcoffset() is None:
        raise misfit(path, expected, value)
    return moment


def _read_decimal(value: Any, path: Path) -> Decimal:
    if type(value) not in (str, int, float):
        raise misfit(path, "decimal number", value)
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):
        raise misfit(path, "decimal number", value) from None
    if not number.is_finite():
        raise misfit(path, "finite decimal number", value)
    return number


def _from_text(parse: Callable[[str], Any], expected: str) -> Reader:
    def read(value: Any, path: Path) -> Any:
        if type(value) is not str:
            raise misfit(path, expected, value)
        try:
            return parse(value)
        except (ValueError, OverflowError):
            raise misfit(path, expected, value) from None

    return read


BASICS: dict[object, Reader] = {
    Any: read_anything,
    object: read_anything,
    inspect.Parameter.empty: read_anything,
    str: _exactly(str, "str"),
    int: _exactly(int, "int"),
    bool: _exactly(bool, "bool"),
    float: _read_float,
    dict: _exactly(dict, "object"),
    abc.Mapping: _exactly(dict, "object"),
    list: _exactly(list, "array"),
    abc.Sequence: _exactly(list, "array"),
    tuple: _read_tuple,
    None: _exactly(type(None), "null"),
    type(None): _exactly(type(None), "null"),
    datetime: _read_datetime,
    date: _from_text(date.fromisoformat, "date in ISO 8601"),
    UUID: _from_text(UUID, "UUID"),
    Decimal: _read_decimal,
}
NAMES: dict[object, str] = {dict: "object", list: "array", None: "null", type(None): "null"}


# ── arrays, objects, choices ───────────────────────────────────────────────────────────────────────


def read_array(reader: Reader) -> Reader:
    def read(value: Any, path: Path) -> list[Any]:
        if type(value) is not list:
            raise misfit(path, "array", value)
        return [reader(item, (*path, index)) for index, item in enumerate(value)]

    return read


def read_object(reader: Reader) -> Reader:
    def read(value: Any, path: Path) -> dict[str, Any]:
        if type(value) is not dict:
            raise misfit(path, "object", value)
        return {key: reader(item, (*path, key)) for key, item in value.items()}

    return read


def read_literal(choices: tuple[Any, ...]) -> Reader:
    expected = " or ".join(repr(choice) for choice in choices)[:200]

    def read(value: Any, path: Path) -> Any:
        for choice in choices:
            if value == choice and type(value) is type(choice):  # True is not 1
                return choice
        raise misfit(path, expected, value)

    return read


def read_enum(kind: type[Enum]) -> Reader:
    members = list(kind)

    def read(value: Any, path: Path) -> Enum:
        for member in members:
            if member.value == value and isinstance(member.value, bool) == isinstance(value, bool):
                return member
        raise misfit(path, f"one of {', '.join(repr(m.value) for m in members)[:200]}", value)

    return read


def construct(kind: type, arguments: dict[str, Any], path: Path) -> Any:
    try:
        return kind(**arguments)
    except RecursionError:
        raise
    except Exception as error:  # what __post_init__ refuses is a payload that does not fit
        where = path_text("payload", list(path))
        raise PayloadMismatch(f"{where}: {kind.__name__} refused it: {_first_line(error)}") from error


# ── other libraries' classes ───────────────────────────────────────────────────────────────────────


def read_pydantic(kind: Any) -> Reader:
    def read(value: Any, path: Path) -> Any:
        try:
            # As JSON, not as Python values: only so does a strict model take the text of a datetime.
            return kind.__pydantic_validator__.validate_json(json.dumps(value))
        except RecursionError:
            raise
        except Exception as error:  # also what the user's own validators raise
            raise _pydantic_misfit(error, kind, path) from error

    return read


def _pydantic_misfit(error: Any, kind: type, path: Path) -> PayloadMismatch:
    problems = error.errors(include_url=False) if hasattr(error, "errors") else []
    if not problems:
        where = path_text("payload", list(path))
        return PayloadMismatch(f"{where}: {kind.__name__} refused it: {_first_line(error)}")
    first = problems[0]
    where = path_text("payload", [*path, *first["loc"]])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    got = "" if first["type"] == "missing" else f", got {_shown(first['input'])}"
    return PayloadMismatch(f"{where}: {_first_line(first['msg'])}{got}{more}")


def read_msgspec(kind: Any) -> Reader:
    convert = sys.modules["msgspec"].convert

    def read(value: Any, path: Path) -> Any:
        try:
            return convert(value, type=kind)
        except RecursionError:
            raise
        except Exception as error:
            message, _, inner = _first_line(error).partition(" - at `$")
            where = path_text("payload", list(path)) + inner.rstrip("`")
            raise PayloadMismatch(f"{where}: {message}") from error

    return read


def _first_line(error: object) -> str:
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - __str__ is user code
        text = ""
    return text.splitlines()[0][:500] if text else type(error).__name__
