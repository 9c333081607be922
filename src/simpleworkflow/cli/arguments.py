"""How arguments are read: run ids, lengths of time, moments, payloads."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click

from simpleworkflow.cli.text import one_line, shortened
from simpleworkflow.model import JSON_BYTES_MAX

_ID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m|min|h|d)?")
_UNIT_SECONDS = {"ms": 0.001, None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
# A payload has at most 1 MB as the database writes it; its source may hold white space and escapes as well.
_PAYLOAD_BYTES_MAX = 8 * JSON_BYTES_MAX


# Not ParamType[UUID] and its like: before click 8.4 the class takes no subscript.
class RunId(click.ParamType):  # type: ignore[type-arg]
    """A run's id, or that of ``what``: a UUID.  ``found_by``: the command that shows them."""

    name = "id"

    def __init__(self, what: str = "a run id", found_by: str = "wf run list") -> None:
        self._what = what
        self._found_by = found_by

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        if isinstance(value, UUID):
            return value
        if _ID.fullmatch(value) is None:
            self.fail(
                f"expected {self._what} (a UUID), got {_quoted(value)}; `{self._found_by}` shows them",
                param,
                ctx,
            )
        return UUID(value)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A length of time such as 30, 30s, 5m, 2h or 1d, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        seconds = _seconds(value)
        if seconds is None:
            self.fail(f"expected a duration such as 30s, 5m, 2h or 1d, got {_quoted(value)}", param, ctx)
        return seconds


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A time in ISO 8601 with a time zone; if it may lie in the past, also how long ago it was."""

    name = "time"

    def __init__(self, *, may_be_ago: bool = False) -> None:
        self._may_be_ago = may_be_ago

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        ago = _seconds(value) if self._may_be_ago else None
        try:
            found = datetime.now(UTC) - timedelta(seconds=ago) if ago is not None else _iso(value)
        except (ValueError, OverflowError):
            expected = "expected a time with its zone such as 2030-01-31T09:00:00Z"
            or_ago = ", or how long ago such as 2h" if self._may_be_ago else ""
            self.fail(f"{expected}{or_ago}, got {_quoted(value)}", param, ctx)
        return found


def _iso(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.utcoffset() is None:
        raise ValueError("without a time zone it names no moment")
    return found


def _seconds(text: str) -> float | None:
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _UNIT_SECONDS[found[2]] if found else None


def _quoted(value: object) -> str:
    return repr(shortened(one_line(value), 60))


def read_payload(argument: str) -> Any:
    """Return the payload that is written out, on stdin (``-``), or in a file (``@name``), decoded.

    Raises:
        UsageError: it is no JSON, or far too large; the message tells where.
    """
    from simpleworkflow.codec import decode
    from simpleworkflow.errors import PayloadMismatch

    text, source = _payload_text(argument)
    try:
        payload = decode(text, name=source)
    except PayloadMismatch as error:
        hint = "" if argument == "-" or argument.startswith("@") else """; write '{"key": "value"}'"""
        raise click.UsageError(f"{error}{hint}", click.get_current_context()) from None
    if payload is None:
        raise click.UsageError(f"{source} is null; leave it out for {{}}", click.get_current_context())
    return payload


def _payload_text(argument: str) -> tuple[str, str]:
    if argument == "-":
        return _decoded(sys.stdin.buffer.read(_PAYLOAD_BYTES_MAX + 1), "the payload on stdin")
    if argument.startswith("@"):
        source = f"the payload in {one_line(argument[1:])}"
        try:
            with open(argument[1:], "rb") as file:
                return _decoded(file.read(_PAYLOAD_BYTES_MAX + 1), source)
        except (OSError, ValueError) as error:
            raise click.UsageError(f"{source} cannot be read: {getattr(error, 'strerror', error)}") from None
    return argument, "the payload"


def _decoded(raw: bytes, source: str) -> tuple[str, str]:
    if len(raw) > _PAYLOAD_BYTES_MAX:
        raise click.UsageError(f"{source} is larger than the 1 MB that a run can hold")
    try:
        return raw.decode("utf-8-sig"), source
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{source} is not UTF-8 text (byte {error.start})") from None
