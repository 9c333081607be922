"""Typed payloads: from a handler's annotation to a function that reads its payload.

An annotation is read once, when a handler is registered, into small functions that are called for each
run.  Pydantic and msgspec are recognised by what they put on their classes and are never imported here.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc
from collections.abc import Callable
from enum import Enum
from typing import Any

from simpleworkflow.errors import PayloadMismatch
from simpleworkflow.readers import (
    BASICS,
    NAMES,
    Path,
    Reader,
    construct,
    misfit,
    missing,
    read_anything,
    read_array,
    read_enum,
    read_literal,
    read_msgspec,
    read_object,
    read_pydantic,
)

__all__ = ["payload_reader"]


def payload_reader(annotation: object) -> Callable[[Any], Any]:
    """Return a function that turns a decoded payload into what ``annotation`` names.

    Reads dataclasses (nested, with defaults; unknown fields are ignored, so that a producer may be newer
    than its worker), pydantic models, msgspec Structs, TypedDicts (their scalars are checked, nothing is
    converted), list, tuple, dict with str keys, Optional, Union, Literal, Enum, datetime (ISO 8601 with a
    time zone), date, UUID, Decimal and the JSON types.  An int is taken where a float is expected; a bool
    is no int.  Without annotation, and for Any, the payload stays as it is.

    The function raises ``PayloadMismatch`` naming the field, and nothing else:
    ``payload.amount: expected float, got str '12'``.

    Raises:
        TypeError: payloads of this annotation cannot be read.
    """
    reader = _Compiler().reader(annotation)

    def read(value: Any) -> Any:
        try:
            return reader(value, ())
        except RecursionError:
            raise PayloadMismatch("payload: expected fewer levels, got a nesting too deep to read") from None

    return read


# ── annotations that are made of others ────────────────────────────────────────────────────────────


class _Compiler:
    """Reads one annotation; remembers the classes it has begun, so that they may refer to themselves."""

    def __init__(self) -> None:
        self._readers: dict[type, Reader] = {}

    def reader(self, annotation: Any) -> Reader:
        try:
            basic = BASICS.get(annotation)
        except TypeError:  # not hashable, such as Literal[[]] or Annotated[int, {}]
            basic = None
        if basic is not None:
            return basic
        unwrapped = _unwrap(annotation)
        if unwrapped is not annotation:
            return self.reader(unwrapped)
        origin = typing.get_origin(annotation)
        if origin is not None:
            args = typing.get_args(annotation)
            # typing.List and its like, without what they hold, are the class itself.
            return self._generic(origin, args, annotation) if args else self.reader(origin)
        if isinstance(annotation, type):
            return self._class(annotation)
        raise _unreadable(annotation)

    def _generic(self, origin: Any, args: tuple[Any, ...], annotation: object) -> Reader:
        if origin in (typing.Union, types.UnionType):
            return self._union(args)
        if origin is typing.Literal:
            return read_literal(args)
        if origin in (list, abc.Sequence):
            return read_array(self.reader(args[0]))
        if origin is tuple:
            return self._tuple(args)
        if origin in (dict, abc.Mapping) and args[0] in (str, Any):
            return read_object(self.reader(args[1]))
        if _is_class_with_fields(origin):  # a generic dataclass or model, such as Page[int]
            return self._class(origin, annotation)
        raise _unreadable(annotation)

    def _union(self, args: tuple[Any, ...]) -> Reader:
        plain = {arg for arg in args if arg in (str, int, bool, float, type(None))}
        readers = [self.reader(arg) for arg in args if arg is not type(None)]
        expected = " or ".join(_name(arg) for arg in args)

        def read(value: Any, path: Path) -> Any:
            if type(value) in plain:  # the member of exactly this type wins: 3 is an int in float | int
                return value
            if len(readers) == 1 and value is not None:
                return readers[0](value, path)  # its own message says more than the union's
            for reader in readers:
                try:
                    return reader(value, path)
                except PayloadMismatch:
                    continue
            raise misfit(path, expected, value)

        return read

    def _tuple(self, args: tuple[Any, ...]) -> Reader:
        if len(args) == 2 and args[1] is Ellipsis:
            items = read_array(self.reader(args[0]))
            return lambda value, path: tuple(items(value, path))
        readers = [self.reader(arg) for arg in args]

        def read(value: Any, path: Path) -> tuple[Any, ...]:
            if type(value) is not list or len(value) != len(readers):
                raise misfit(path, f"array of {len(readers)}", value)
            return tuple(
                reader(item, (*path, index))
                for index, (reader, item) in enumerate(zip(readers, value, strict=True))
            )

        return read

    def _class(self, kind: type, annotation: Any = None) -> Reader:
        """Return the reader of a class; ``annotation`` is its parametrised form, if it has one."""
        if kind in self._readers:
            return self._later(kind)
        if hasattr(kind, "__pydantic_validator__"):
            return read_pydantic(annotation if isinstance(annotation, type) else kind)
        if hasattr(kind, "__struct_fields__"):
            return read_msgspec(annotation or kind)
        if issubclass(kind, Enum):
            return read_enum(kind)
        if typing.is_typeddict(kind):
            return self._typed_dict(kind)
        if dataclasses.is_dataclass(kind):
            self._readers[kind] = read_anything  # for the time of compiling; replaced before any call
            self._readers[kind] = self._dataclass(kind)
            return self._readers[kind]
        raise _unreadable(kind)

    def _later(self, kind: type) -> Reader:
        """Return a reader that looks itself up when called: its class is still being compiled."""

        def read(value: Any, path: Path) -> Any:
            return self._readers[kind](value, path)

        return read

    def _typed_dict(self, kind: Any) -> Reader:
        scalars = (str, int, float, bool, type(None))
        checks = {name: BASICS[hint] for name, hint in _hints(kind).items() if hint in scalars}
        required = _required_keys(kind)

        def read(value: Any, path: Path) -> Any:
            if type(value) is not dict:
                raise misfit(path, f"object ({kind.__name__})", value)
            for name in required:
                if name not in value:
                    raise missing((*path, name))
            for name, check in checks.items():
                if name in value:
                    check(value[name], (*path, name))
            return value

        return read

    def _dataclass(self, kind: type) -> Reader:
        hints = _hints(kind)
        fields = [field for field in dataclasses.fields(kind) if field.init]
        readers = {field.name: self.reader(hints[field.name]) for field in fields}
        required = [field.name for field in fields if _is_required(field)]

        def read(value: Any, path: Path) -> Any:
            if type(value) is not dict:
                raise misfit(path, f"object ({kind.__name__})", value)
            for name in required:
                if name not in value:
                    raise missing((*path, name))
            return construct(
                kind,
                {name: read(value[name], (*path, name)) for name, read in readers.items() if name in value},
                path,
            )

        return read


# ── words ──────────────────────────────────────────────────────────────────────────────────────────


def _unwrap(annotation: Any) -> Any:
    """Return what NewType, Annotated, Required, a type alias or a TypeVar stand for, or the same."""
    if typing.get_origin(annotation) in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return typing.get_args(annotation)[0]
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    if isinstance(annotation, typing.TypeVar):
        return Any
    if type(annotation).__name__ == "TypeAliasType":  # the statement `type X = …` of Python 3.12
        return annotation.__value__
    return annotation


def _hints(kind: type) -> dict[str, Any]:
    try:
        return {name: _unwrap(hint) for name, hint in typing.get_type_hints(kind).items()}
    except NameError as error:
        raise TypeError(
            f"expected the annotations of {kind.__name__} to be importable, got {error}; "
            "define what they name at module level"
        ) from error


def _required_keys(kind: Any) -> list[str]:
    # With annotations kept as text, Python 3.11 to 3.13 do not see NotRequired when they fill
    # __required_keys__: the marker has to be looked at once more.
    hints = typing.get_type_hints(kind, include_extras=True)
    marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
    return [
        name
        for name, mark in marks.items()
        if mark is typing.Required or (name in kind.__required_keys__ and mark is not typing.NotRequired)
    ]


def _is_class_with_fields(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or any(
        hasattr(kind, mark) for mark in ("__pydantic_validator__", "__struct_fields__")
    )


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _name(annotation: Any) -> str:
    return NAMES.get(annotation) or getattr(annotation, "__name__", None) or str(annotation)


def _unreadable(annotation: object) -> TypeError:
    return TypeError(
        "expected a payload annotation of JSON types, dataclass, TypedDict, pydantic or msgspec, "
        f"got {str(annotation)[:200]}"
    )
