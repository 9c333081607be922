"""Handlers that return and raise what nobody should, in this process and in a program of its own."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import math
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from simpleworkflow import RetryAfter, Worker

MEGABYTE = 1_000_000


class Unspeakable(Exception):
    """Can be neither shown nor printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Mute(Exception):
    """Ends the program that asks for its message."""

    def __str__(self) -> str:
        raise SystemExit(3)


class WrongWords(Exception):
    """Its message is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value] # noqa: PLE0307


class Faceless(Exception):
    """Nobody may ask for its class."""

    @property
    def __class__(self) -> Any:
        raise SystemExit("not even that")


class Causeless(Exception):
    """Raises when it is asked for its cause."""

    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")


class Endless(Mapping[str, None]):
    """A mapping of ever more of the same key, which takes no byte."""

    def __getitem__(self, key: str) -> None:
        return None

    def __iter__(self) -> Iterator[str]:
        while True:
            yield ""

    def __len__(self) -> int:
        return 1


class Exiting:
    """A model whose own code ends the program."""

    def model_dump(self, mode: str) -> Any:
        raise SystemExit(mode)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Hollow:
    """A dataclass of which a field was never set."""

    field: int = dataclasses.field(init=False)


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


def ring(error: BaseException) -> BaseException:
    error.__cause__ = ValueError("the first")
    error.__cause__.__cause__ = error
    return error


def chain(length: int) -> BaseException:
    error: BaseException = ValueError("0")
    for number in range(1, length):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer
    return error


def group_of_groups(levels: int) -> BaseException:
    error: Exception = ValueError("inside")
    for _ in range(levels):
        error = ExceptionGroup("outside", [error])
    return error


async def unawaited() -> None:
    await asyncio.sleep(0)


def numbers() -> Iterator[int]:
    yield 1


async def async_numbers() -> Any:
    yield 1


# What cannot be stored, and what is said of it.
UNSTORABLE: dict[str, tuple[Any, str]] = {
    "nan": (lambda: {"a": [1, math.nan]}, "result.a[1]: expected a finite number, got nan"),
    "infinity": (lambda: -math.inf, "result: expected a finite number, got -inf"),
    "decimal nan": (lambda: Decimal("sNaN"), "result: expected a finite number, got sNaN"),
    "set": (lambda: {1, 2}, "got a set (make it a sorted list)"),
    "bytes": (lambda: {"a": b"\x00\xff"}, "result.a: expected a JSON value, got bytes"),
    "memoryview": (lambda: memoryview(b"x"), "got memoryview"),
    "cycle": (cycle, "or a value that holds itself"),
    "deep": (lambda: nested(101), "expected at most 100 levels"),
    "deeper": (lambda: nested(100_000), "expected at most 100 levels"),
    "generator": (numbers, "got a generator (make it a list)"),
    "async generator": (async_numbers, "got a generator (make it a list)"),
    "coroutine": (
        lambda: [unawaited()],
        "result[0]: expected a JSON value, got the coroutine unawaited (await it)",
    ),
    "naive": (lambda: datetime(2030, 1, 1), "expected a datetime with a time zone, got the naive"),
    "timedelta": (lambda: timedelta(1), "got timedelta"),
    "complex": (lambda: 1j, "got complex"),
    "fraction": (lambda: Fraction(1, 3), "got Fraction"),
    "object": (object, "got object"),
    "class": (lambda: Colour, "got EnumType"),
    "module": (lambda: sys, "got module"),
    "lock": (threading.Lock, "got lock"),
    "function": (lambda: cycle, "got function"),
    "nul": (lambda: "a\x00b", "expected text without NUL"),
    "nul in a key": (lambda: {"a\x00": 1}, "expected text without NUL"),
    "surrogate": (lambda: {"a": "\udcff"}, "result.a: expected valid Unicode, got a lone surrogate"),
    "key of int": (lambda: {1: 2}, "result: expected keys of str, got int 1"),
    "key of tuple": (lambda: {(1, 2): 3}, "expected keys of str"),
    "long integer": (lambda: 10**5000, "expected an integer of at most 4300 digits"),
    "100 MB": (lambda: "x" * 100 * MEGABYTE, "expected at most 1048576 bytes of JSON"),
    "amplified": (lambda: [["x" * 1000] * 1000] * 1000, "expected at most 1048576 bytes of JSON"),
    "endless": (Endless, "expected at most 1048576 bytes of JSON"),
    "exits when read": (Exiting, "reading it raised SystemExit"),
    "hollow": (Hollow, "reading the value raised AttributeError"),
    "exception": (lambda: ValueError("returned"), "got ValueError"),
}
# What can be, and how.
STORABLE: dict[str, tuple[Any, Any]] = {
    "decimal": (lambda: Decimal("1.20"), "1.20"),
    "datetime": (lambda: datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00+00:00"),
    "date": (lambda: date(2030, 1, 1), "2030-01-01"),
    "uuid": (lambda: uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "enum": (lambda: Colour.RED, "red"),
    "tuple": (lambda: (1, 2), [1, 2]),
    "ordered dict": (lambda: collections.OrderedDict(a=1), {"a": 1}),
    "prototype": (lambda: {"__proto__": {"admin": True}}, {"__proto__": {"admin": True}}),
    "empty key": (lambda: {"": 1}, {"": 1}),
    "large integer": (lambda: 2**64 + 1, 2**64 + 1),
    "100 levels": (lambda: nested(100), None),
}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def recurse() -> Any:
    return [recurse()]


# What is raised, and what is said of it.
RAISED: dict[str, tuple[Any, str]] = {
    "neither str nor repr": (
        Unspeakable,
        "Unspeakable (its message cannot be read: __str__ raised RuntimeError)",
    ),
    "exits when it is read": (Mute, "Mute (its message cannot be read: __str__ raised SystemExit)"),
    "a message that is no text": (
        WrongWords,
        "WrongWords (its message cannot be read: __str__ raised TypeError)",
    ),
    "a class that raises": (Faceless, "Faceless"),
    "a cause that raises": (Causeless, "Causeless"),
    "100 MB": (lambda: ValueError("head" + "x" * 100 * MEGABYTE + "tail"), "ValueError: head"),
    "100 MB of bytes": (lambda: ValueError(b"\x00" * 25 * MEGABYTE), "ValueError: b'"),
    "a group of 10,000": (
        lambda: ExceptionGroup("many", [ValueError(str(number)) for number in range(10_000)]),
        "ExceptionGroup: many (10000 sub-exceptions)",
    ),
    "a group in a group, 500 deep": (
        lambda: group_of_groups(500),
        "ExceptionGroup: outside (1 sub-exception)",
    ),
    "a group of what cannot be read": (
        lambda: ExceptionGroup("no", [Unspeakable(), Mute()]),
        "ExceptionGroup: no",
    ),
    "a ring of causes": (lambda: ring(ValueError("the second")), "ValueError: the second"),
    "10,000 causes": (lambda: chain(10_000), "ValueError: 9999"),
    "control characters": (lambda: ValueError("a\x1b[2J\x07\u202eb\x00\r\n"), "ValueError: a"),
    "half a surrogate pair": (lambda: ValueError("\ud800"), "ValueError: \ufffd"),
    "a name of 100 kB": (type("E" * 100_000, (Exception,), {}), "EEEE"),
    "a name with control characters": (type("E\x1bE", (Exception,), {}), "E\x1b"),
    "recursion": (recurse, "RecursionError: maximum recursion depth exceeded"),
    "memory": (lambda: [0] * 2**62, "MemoryError"),
    "not an exception": (lambda: raise_(5), "TypeError: exceptions must derive from BaseException"),
    "retry after a broken time": (
        lambda: raise_(RetryAfter(math.nan)),
        "ValueError: expected seconds >= 0, got nan",
    ),
}


def raise_(thing: Any) -> Any:
    raise thing


def fail(name: str) -> None:
    raise RAISED[name][0]()


def a_worker(**options: Any) -> Worker:
    worker = Worker(concurrency=50, threads=4, **options)

    @worker.handler("return.async.v1")
    async def return_async(run: Any) -> Any:
        return (UNSTORABLE | STORABLE)[run.payload][0]()

    @worker.handler("return.thread.v1")
    def return_thread(run: Any) -> Any:
        return (UNSTORABLE | STORABLE)[run.payload][0]()

    @worker.handler("raise.async.v1", max_attempts=1)
    async def raise_async(run: Any) -> Any:
        fail(run.payload)

    @worker.handler("raise.thread.v1", max_attempts=1)
    def raise_thread(run: Any) -> Any:
        fail(run.payload)

    @worker.handler("echo.v1")
    async def echo(run: Any) -> Any:
        return run.payload

    @worker.handler("progress.v1", max_attempts=1)
    async def progress(run: Any) -> Any:
        percent, message = PROGRESS[run.payload]
        await run.progress(percent, message)

    return worker


PROGRESS: dict[str, tuple[Any, Any]] = {
    "control characters": (1, "a\x1b[2J\u202e\r\nb"),
    "a nul": (2, "a\x00b"),
    "a literal backslash before u0000": (3, "a\\u0000b"),
    "half a surrogate pair": (4, "\ud800"),
    "10 MB": (5, "x" * 10 * MEGABYTE),
    "a message that is no text": (6, 5),
    "a decimal": (Decimal("7.5"), None),
    "true": (True, None),
}

worker = a_worker(lease_seconds=2, poll_seconds=0.2)
