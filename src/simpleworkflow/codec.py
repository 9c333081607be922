"""Python values to and from the JSON text that PostgreSQL's jsonb accepts, and bounded error texts.

How values are written, beside the obvious: datetime (with a time zone), date and time as ISO 8601; UUID
and Decimal as strings (a JSON number would lose digits in most languages); Enum as its value; dataclass,
pydantic model, msgspec Struct and any Mapping as an object; tuple as an array; a numpy scalar as its
Python value.  Everything else is refused, in one line that names the path to it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from simpleworkflow.errors import InvalidInput, PayloadMismatch
from simpleworkflow.model import ERROR_BYTES_MAX, JSON_BYTES_MAX
from simpleworkflow.plain import is_plain, to_plain

__all__ = [
    "JsonText",
    "bound_text",
    "decode",
    "describe_error",
    "encode_payload",
    "encode_result",
]


@dataclass(frozen=True, slots=True)
class JsonText:
    """JSON as the database prints it, or as somebody wrote it: passed on as it is, so that no number loses a digit."""

    text: str = field(repr=False)


# ── to JSON ────────────────────────────────────────────────────────────────────────────────────────

# The separators stay the default ones: ", " and ": " are how jsonb prints itself, so that the size we
# measure is the size the database measures.  Cycles are found by depth, before this encoder sees them.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode


def encode_payload(value: object) -> str:
    """Return ``value`` as the JSON text of a payload: strict, at most 1 MB (1,048,576 bytes), 100 levels.

    Raises:
        InvalidInput: the value cannot be stored; the message names the path to what is wrong.
    """
    return _to_json(value, "payload")


def encode_result(value: object) -> str | None:
    """Return ``value`` as the JSON text of a result, or None for None; limits as for a payload.

    Raises:
        InvalidInput: the value cannot be stored; the message names the path to what is wrong.
    """
    return None if value is None else _to_json(value, "result")


def _to_json(value: object, name: str) -> str:
    if isinstance(value, JsonText):
        return value.text  # the database measures what it is when it is printed
    text = _fast_json(value) if is_plain(value) else None
    if text is None:
        # Something is not plain or not storable: convert it, or say exactly where it is.
        text = _encode(to_plain(value, name))
    size = len(text) if text.isascii() else len(text.encode())
    if size > JSON_BYTES_MAX:
        raise InvalidInput(f"{name}: expected at most {JSON_BYTES_MAX} bytes of JSON, got {size}")
    return text


def _fast_json(value: object) -> str | None:
    """Return the text of a plain value, or None if it may hold something that jsonb refuses."""
    try:
        text = _encode(value)
    except (ValueError, RecursionError):  # NaN, infinity, an integer of more digits than Python prints
        return None
    # May be a harmless backslash before "u0000"; the careful path tells them apart.
    if "\\u0000" in text or not (text.isascii() or _SURROGATE.search(text) is None):
        return None
    return text


_SURROGATE = re.compile("[\ud800-\udfff]")

# ── from JSON ──────────────────────────────────────────────────────────────────────────────────────


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number beyond any float")
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not JSON")


_decoder = json.JSONDecoder(parse_float=_finite_float, parse_constant=_refuse_constant)


def decode(text: str, *, name: str = "payload") -> Any:
    """Return the Python value of JSON text from the database.

    Raises:
        PayloadMismatch: Python cannot hold it: an integer of more than 4300 digits, a number beyond any
            float, a nesting too deep, or no JSON at all.  ``name`` begins the message.
    """
    try:
        # Without looking for blanks around it, of which the database prints none, in half the time.
        begin = 0 if text[:1] > " " else len(text) - len(text.lstrip(" \t\n\r"))
        value, end = _decoder.raw_decode(text, begin)
        return value if end == len(text) else _decoder.decode(text)
    except RecursionError:
        reason = "is nested too deep for Python to read"
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {error.msg} at character {error.pos}"
    except ValueError as error:
        held = str(error) if "digits" not in str(error) else "an integer of more than 4300 digits"
        reason = f"holds {held}"
    raise PayloadMismatch(f"{name} {reason}")


# ── bounded texts ──────────────────────────────────────────────────────────────────────────────────

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NOTE_BYTES_MAX = 64
_CAUSES_MAX = 3
_GROUP_ERRORS_SHOWN = 5


def bound_text(text: str, limit_bytes: int = ERROR_BYTES_MAX) -> str:
    """Return ``text`` in at most ``limit_bytes`` bytes of UTF-8, as PostgreSQL can store it.

    Of a longer text the head and the tail are kept, with a note between them of how many characters were
    left out (below 128 bytes: the head alone).  NUL and lone surrogates become U+FFFD.
    """
    if len(text) <= limit_bytes:
        text = _UNSTORABLE.sub("\ufffd", text)
        if text.isascii() or len(text.encode()) <= limit_bytes:
            return text
    if limit_bytes < 2 * _NOTE_BYTES_MAX:
        return _head(text, limit_bytes)
    half = (limit_bytes - _NOTE_BYTES_MAX) // 2
    head, tail = _head(text, half), _tail(text, half)
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n… {left_out} characters left out …\n{tail}"


def _head(text: str, limit_bytes: int) -> str:
    # Cut before cleaning, so that 100 MB are never copied; no character takes less than a byte.
    return _UNSTORABLE.sub("\ufffd", text[:limit_bytes]).encode()[:limit_bytes].decode(errors="ignore")


def _tail(text: str, limit_bytes: int) -> str:
    return _UNSTORABLE.sub("\ufffd", text[-limit_bytes:]).encode()[-limit_bytes:].decode(errors="ignore")


def describe_error(error: BaseException) -> str:
    """Return ``TypeName: message`` for ``last_error``, in at most 64 kB, with up to three causes.

    Of a group the first five errors are named.  Never raises, also when the error's own code does.
    """
    try:
        return _described(error)
    except BaseException:  # noqa: BLE001 - its class, its cause and its errors may be user code too
        return bound_text(f"{type(error).__name__} (it cannot be described: its own code raises)")


def _described(error: BaseException) -> str:
    parts = [_describe_one(error)]
    cause = error.__cause__
    while cause is not None and len(parts) <= _CAUSES_MAX:
        parts.append(f"caused by {bound_text(_describe_one(cause), 4096)}")
        cause = cause.__cause__
    return bound_text("\n".join(parts))


def _describe_one(error: BaseException) -> str:
    text = _name_and_message(error)
    if isinstance(error, BaseExceptionGroup):
        shown = error.exceptions[:_GROUP_ERRORS_SHOWN]
        lines = [f"- {bound_text(_name_and_message(inner), 4096)}" for inner in shown]
        if len(error.exceptions) > len(shown):
            lines.append(f"- and {len(error.exceptions) - len(shown)} more")
        text = "\n".join([text, *lines])
    return text


def _name_and_message(error: BaseException) -> str:
    name = type(error).__name__
    try:
        message = bound_text(str(error))
    except BaseException as broken:  # noqa: BLE001 - __str__ is user code; the worker must live
        return f"{name} (its message cannot be read: __str__ raised {type(broken).__name__})"
    return f"{name}: {message}" if message else name
