"""What a request says, read strictly: one line tells what is wrong with it."""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_origin

import msgspec
from starlette.requests import Request

from simpleworkflow.web.errors import ApiError

__all__ = ["BODY_BYTES_MAX", "read_body", "read_query"]

S = TypeVar("S", bound=msgspec.Struct)

# A payload of a megabyte, each of its characters written as \uXXXX.
BODY_BYTES_MAX = 4 * 1024 * 1024
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_WORDS = {
    "str": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "datetime": "a time",
    "uuid": "a UUID",
    "null": "null",
}


def read_query(request: Request, kind: type[S]) -> S:
    """Return the parameters of a request.

    Raises:
        ApiError: one is unknown, there twice, or not what it must be.
    """
    lists = {one.name for one in msgspec.structs.fields(kind) if get_origin(one.type) is tuple}
    values: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise ApiError("invalid_input", f"{name}: expected one value, got several")
        else:
            values[name] = value
    try:
        return _without_unstorable(msgspec.convert(values, kind, strict=False))
    except msgspec.ValidationError as error:
        raise ApiError("invalid_input", _explain(error, kind, "parameter"), "see /openapi.json") from None


async def read_body(request: Request, kind: type[S], *, bytes_max: int = BODY_BYTES_MAX) -> S:
    """Return the JSON object of a request; an empty body is an empty object.

    Raises:
        ApiError: it is too large, no JSON, or not what it must be.
    """
    body = await _read_bounded(request, bytes_max)
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if (body or media) and media != "application/json":
        # Also what a form of a foreign page cannot say: a browser asks first.
        raise ApiError(
            "invalid_input",
            f"content type: expected application/json, got {media[:60]!a}",
            "send JSON with the header Content-Type: application/json",
            status=415,
        )
    try:
        return _without_unstorable(msgspec.json.decode(body.decode() or "{}", type=kind))
    except msgspec.ValidationError as error:
        raise ApiError("invalid_input", _explain(error, kind, "field"), "see /openapi.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("invalid_input", f"body: expected a JSON object, got none: {error}") from None


async def _read_bounded(request: Request, bytes_max: int) -> bytes:
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > bytes_max:
        raise _too_large(said, bytes_max)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise _too_large("more", bytes_max)
        parts.append(part)
    return b"".join(parts)


def _too_large(got: str, bytes_max: int) -> ApiError:
    return ApiError(
        "too_large",
        f"body: expected at most {bytes_max} bytes, got {got[:20]}",
        "keep large data elsewhere and put a reference to it into the payload",
    )


def _without_unstorable(said: S) -> S:
    for name in said.__struct_fields__:
        value = getattr(said, name)
        if isinstance(value, str) and _UNSTORABLE.search(value):
            raise ApiError("invalid_input", f"{name}: expected text without NUL and lone surrogates")
    return said


def _explain(error: msgspec.ValidationError, kind: type[msgspec.Struct], noun: str) -> str:
    """Return msgspec's message in our words: the name, what was expected, what came."""
    said, _, path = str(error).partition(" - at `$")
    where = path.rstrip("`").lstrip(".") or "body"
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", said, re.DOTALL):
        known = ", ".join(kind.__struct_fields__) or "none"
        return f"{found[1][:60]!a}: unknown {noun}, expected one of: {known}"
    if found := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{found[1]}: expected a value, got none"
    said = re.sub(r"`([a-z]+)(?: \| null)?`", lambda match: _WORDS.get(match[1], match[1]), said)
    return f"{where}: {said[:1].lower()}{said[1:]}"
