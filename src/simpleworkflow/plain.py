"""Which values are plain JSON already, and how the others become plain or are refused by their path."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from simpleworkflow.errors import InvalidInput
from simpleworkflow.model import DEPTH_MAX, JSON_BYTES_MAX

__all__ = ["is_plain", "path_text", "to_plain"]

_SCALARS = frozenset({bool, float, type(None)})


def is_plain(value: object) -> bool:  # noqa: PLR0912 - one loop over every value that is stored
    """Return whether ``value`` is built of dict, list, tuple and scalars alone, within the limits.

    Walks level by level and counts the bytes that the JSON will need at least, so that neither a cycle
    nor a small value that refers to itself many times over can cost more than a megabyte of work.
    """
    level: list[object] = [value]
    size = 0
    for depth in range(DEPTH_MAX + 1):
        below: list[object] = []
        for item in level:
            kind = type(item)
            if kind is str:
                size += len(item)  # type: ignore[arg-type]
            elif kind is int:
                size += item.bit_length() >> 2  # type: ignore[attr-defined]
            elif kind in _SCALARS:
                continue
            elif depth == DEPTH_MAX:  # an array or object here is one level too many, also an empty one
                return False
            elif kind is dict:
                for key in item:  # type: ignore[attr-defined]
                    if type(key) is not str:
                        return False
                    size += len(key)
                below.extend(item.values())  # type: ignore[attr-defined]
            elif kind is list or kind is tuple:
                below.extend(item)  # type: ignore[arg-type]
            else:
                return False
            if size + len(below) > JSON_BYTES_MAX:
                return False
        if not below:
            return True
        size += len(below)
        level = below
    return False


def to_plain(value: object, name: str) -> Any:
    """Return ``value`` built of dict, list and scalars alone, ready for a strict JSON encoder.

    ``name`` is the root of the paths in messages.  Coroutines in a refused value are closed, so that
    Python does not warn about them later.

    Raises:
        InvalidInput: something in it has no JSON form, or it passes a limit.
    """
    converter = _Converter(name)
    try:
        return converter.convert(value)
    except InvalidInput:
        _close_coroutines(value)
        raise
    except Exception as error:  # properties, model_dump and items() are user code
        _close_coroutines(value)
        raise InvalidInput(f"{converter.where()}: reading the value raised {type(error).__name__}") from error


class _Converter:
    """One conversion: where it is, and how many bytes it may still write."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path: list[str | int] = []
        self._bytes_left = JSON_BYTES_MAX

    def where(self) -> str:
        return path_text(self._name, self._path)

    def refuse(self, message: str) -> InvalidInput:
        return InvalidInput(f"{self.where()}: {message}")

    def convert(self, value: object) -> Any:
        if value is None or isinstance(value, bool):
            return value
        for kind, convert in _CONVERSIONS:
            if isinstance(value, kind):
                return convert(self, value)
        return self._convert_by_shape(value)

    def _convert_by_shape(self, value: Any) -> Any:
        """Convert what is known by its shape alone: these libraries are never imported here."""
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.object_of({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
        if hasattr(type(value), "model_dump"):
            return self.convert(value.model_dump(mode="json"))
        msgspec = sys.modules.get("msgspec")
        if msgspec is not None and isinstance(value, msgspec.Struct):
            return self.convert(msgspec.to_builtins(value))
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            return self._numpy_scalar(value)
        raise self.refuse(f"expected a JSON value, got {_what(value)}")

    def _numpy_scalar(self, value: Any) -> Any:
        item = value.item()
        if type(item).__module__ == "numpy":  # longdouble is its own item
            raise self.refuse(f"expected a JSON value, got numpy {type(value).__name__}")
        return self.convert(item)

    def object_of(self, value: Mapping[Any, object]) -> dict[str, Any]:
        self._enter()
        plain = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise self.refuse(f"expected keys of str, got {_what(key)} {_short(key)}")
            key = self.text(key)  # noqa: PLW2901 - the exact str of a subclass
            self._path.append(key)
            self._spend(5)  # "": 1 is the least, so that what yields one key for ever ends
            plain[key] = self.convert(item)
            self._path.pop()
        return plain

    def array_of(self, value: list[object] | tuple[object, ...]) -> list[Any]:
        self._enter()
        plain = []
        for index, item in enumerate(value):
            self._path.append(index)
            self._spend(1)
            plain.append(self.convert(item))
            self._path.pop()
        return plain

    def _enter(self) -> None:
        self._spend(2)
        if len(self._path) >= DEPTH_MAX:
            raise self.refuse(f"expected at most {DEPTH_MAX} levels, got more, or a value that holds itself")

    def _spend(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise InvalidInput(f"{self._name}: expected at most {JSON_BYTES_MAX} bytes of JSON, got more")

    def text(self, value: str) -> str:
        self._spend(len(value))
        if "\x00" in value:
            raise self.refuse("expected text without NUL (U+0000), which PostgreSQL cannot store")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.refuse(
                f"expected valid Unicode, got a lone surrogate at character {error.start}"
            ) from None
        return str.__str__(value)

    def integer(self, value: int) -> int:
        self._spend(value.bit_length() >> 2)
        try:
            int.__repr__(value)
        except ValueError:
            raise self.refuse("expected an integer of at most 4300 digits, got a longer one") from None
        return int.__index__(value)

    def number(self, value: float) -> float:
        if not math.isfinite(value):
            raise self.refuse(f"expected a finite number, got {float.__repr__(value)}")
        return float.__float__(value)

    def decimal(self, value: Decimal) -> str:
        if not value.is_finite():
            raise self.refuse(f"expected a finite number, got {value}")
        return self.text(str(value))

    def moment(self, value: datetime) -> str:
        if value.utcoffset() is None:
            raise self.refuse(f"expected a datetime with a time zone, got the naive {value.isoformat()}")
        return value.isoformat()


_CONVERSIONS: tuple[tuple[Any, Callable[[_Converter, Any], Any]], ...] = (
    (Enum, lambda converter, value: converter.convert(value.value)),
    (str, _Converter.text),
    (int, _Converter.integer),
    (float, _Converter.number),
    (Mapping, _Converter.object_of),
    ((list, tuple), _Converter.array_of),
    (datetime, _Converter.moment),
    ((date, time), lambda _, value: value.isoformat()),
    (UUID, lambda _, value: str(value)),
    (Decimal, _Converter.decimal),
)


def path_text(name: str, path: list[str | int]) -> str:
    """Return ``payload.items[3].price`` for a root name and its steps, short also when they are long."""
    if len(path) > 12:
        return path_text(name, path[:6]) + "…" + path_text("", path[-3:])
    return name + "".join(_step_text(step) for step in path)


def _step_text(step: str | int) -> str:
    if isinstance(step, str) and step.isidentifier() and len(step) <= 60:
        return f".{step}"
    return f"[{_short(step)}]"


def _short(value: object) -> str:
    if isinstance(value, str):
        return ascii(value[:60]) + ("…" if len(value) > 60 else "")
    return repr(value)[:60] if isinstance(value, int | float | bool | None) else ""


def _what(value: object) -> str:
    if inspect.iscoroutine(value):
        return f"the coroutine {value.__name__[:60]} (await it)"
    if isinstance(value, set | frozenset):
        return f"a {type(value).__name__} (make it a sorted list)"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{type(value).__name__} (encode it as text, such as base64)"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "a generator (make it a list)"
    return type(value).__name__[:100]


def _close_coroutines(value: object) -> None:
    """Close un-awaited coroutines in nested lists and dicts; look at no container twice."""
    seen: set[int] = set()
    unseen = [value]
    while unseen:
        item = unseen.pop()
        if inspect.iscoroutine(item):
            item.close()
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            unseen.extend(item.values() if isinstance(item, dict) else item)
