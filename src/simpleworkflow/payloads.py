"""Typed payloads: from a handler's annotation to a function that reads its payload.

Pydantic and msgspec are recognised by what they put on their classes and are never imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["payload_reader"]


def payload_reader(annotation: object) -> Callable[[Any], Any]:
    return lambda value: value
