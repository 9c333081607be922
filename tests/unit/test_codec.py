"""Python values to and from jsonb's text, and error texts that always fit."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import types
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleworkflow.codec import (
    bound_text,
    decode,
    describe_error,
    encode_payload,
    encode_result,
)
from simpleworkflow.errors import InvalidInput, PayloadMismatch
from simpleworkflow.model import DEPTH_MAX, ERROR_BYTES_MAX, JSON_BYTES_MAX

TOO_DEEP = "expected at most 100 levels, got more, or a value that holds itself"


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    def __str__(self) -> str:
        return "not this"


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Model(pydantic.BaseModel):
    day: date
    price: Decimal


class Record(msgspec.Struct):
    key: UUID


class Float64:
    """Stands for numpy's scalars, which are recognised by their module and shape."""

    shape = ()

    def __init__(self, item: object) -> None:
        self._item = item

    def item(self) -> object:
        return self._item


Float64.__module__ = "numpy"


class Hostile:
    """A model whose own code raises."""

    def model_dump(self, mode: str) -> object:
        raise RuntimeError("no")


async def coroutine() -> None:
    pass


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> object:
    value: dict[str, object] = {}
    value["again"] = value
    return value


def amplified() -> object:
    value: object = "x" * 1000
    for _ in range(90):
        value = [value, value]
    return value


storable_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | storable_text,
    lambda inner: st.lists(inner) | st.dictionaries(storable_text, inner),
)


@given(json_values)
def test_every_json_value_comes_back_as_it_was(value):
    text = encode_payload(value)

    assert decode(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, (2,)), "[1, [2]]"),
        (Colour.RED, '"red"'),
        (Level.HIGH, "3"),
        (Name("this"), '"this"'),
        ({Name("this"): 1}, '{"this": 1}'),
        (OrderedDict(a=1), '{"a": 1}'),
        (types.MappingProxyType({"a": 1}), '{"a": 1}'),
        (datetime(2024, 1, 2, 3, 4, tzinfo=UTC), '"2024-01-02T03:04:00+00:00"'),
        (date(2024, 1, 2), '"2024-01-02"'),
        (time(3, 4), '"03:04:00"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.2300000000000000000000"), '"1.2300000000000000000000"'),
        (
            Point(1, datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2)))),
            '{"x": 1, "at": "2024-01-02T00:00:00+02:00"}',
        ),
        (Model(day=date(2024, 1, 2), price=Decimal("1.50")), '{"day": "2024-01-02", "price": "1.50"}'),
        (Record(UUID(int=1)), '{"key": "00000000-0000-0000-0000-000000000001"}'),
        (Float64(1.5), "1.5"),
        ("a literal \\u0000 is harmless", '"a literal \\\\u0000 is harmless"'),
        (nested(DEPTH_MAX), "[" * DEPTH_MAX + "1" + "]" * DEPTH_MAX),
    ],
)
def test_a_value_that_has_a_json_form_is_written_in_it(value, text):
    assert encode_payload(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"items": [1, 2, 3, {"price": math.nan}]},
            "payload.items[3].price: expected a finite number, got nan",
        ),
        (-math.inf, "payload: expected a finite number, got -inf"),
        ({"a": Decimal("NaN")}, "payload.a: expected a finite number, got NaN"),
        (
            {"a b": "\x00"},
            "payload['a b']: expected text without NUL (U+0000), which PostgreSQL cannot store",
        ),
        ({"\x00": 1}, "payload: expected text without NUL (U+0000), which PostgreSQL cannot store"),
        (["\ud800"], "payload[0]: expected valid Unicode, got a lone surrogate at character 0"),
        ({"x\udfff": 1}, "payload: expected valid Unicode, got a lone surrogate at character 1"),
        ({1: 2}, "payload: expected keys of str, got int 1"),
        ({"a": {None: 2}}, "payload.a: expected keys of str, got NoneType None"),
        ({1, 2}, "payload: expected a JSON value, got a set (make it a sorted list)"),
        (b"x", "payload: expected a JSON value, got bytes (encode it as text, such as base64)"),
        ((x for x in ()), "payload: expected a JSON value, got a generator (make it a list)"),
        ({"a": object()}, "payload.a: expected a JSON value, got object"),
        ({"a": Point}, "payload.a: expected a JSON value, got type"),
        (1j, "payload: expected a JSON value, got complex"),
        (10**5000, "payload: expected an integer of at most 4300 digits, got a longer one"),
        (
            datetime(2024, 1, 1),
            "payload: expected a datetime with a time zone, got the naive 2024-01-01T00:00:00",
        ),
        (Hostile(), "payload: reading the value raised RuntimeError"),
        (
            nested(DEPTH_MAX + 1),
            f"payload[0][0][0][0][0][0]…[0][0][0]: {TOO_DEEP}",
        ),
        (
            cycle(),
            f"payload.again.again.again.again.again.again….again.again.again: {TOO_DEEP}",
        ),
        ("x" * JSON_BYTES_MAX, "payload: expected at most 1048576 bytes of JSON, got 1048578"),
        ("é" * (JSON_BYTES_MAX // 2), "payload: expected at most 1048576 bytes of JSON, got 1048578"),
        (amplified(), "payload: expected at most 1048576 bytes of JSON, got more"),
        ([10**4000] * 10**6, "payload: expected at most 1048576 bytes of JSON, got more"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) and value.isprintable() else "value",
)
def test_a_value_that_cannot_be_stored_is_refused_in_one_line_that_says_where(value, message):
    with pytest.raises(InvalidInput) as refused:
        encode_payload(value)

    assert str(refused.value) == message


def test_the_largest_text_that_fits_is_taken():
    text = encode_payload("x" * (JSON_BYTES_MAX - 2))

    assert len(text) == JSON_BYTES_MAX


def test_a_key_of_ten_megabytes_does_not_make_a_long_message():
    with pytest.raises(InvalidInput) as refused:
        encode_payload({"k" * 1000: {"x": {1}}})

    assert len(str(refused.value)) < 200


def test_coroutines_nobody_awaited_are_named_and_closed():
    first, second = coroutine(), coroutine()

    with pytest.raises(InvalidInput) as refused:
        encode_result({"a": [first, second]})

    assert str(refused.value) == "result.a[0]: expected a JSON value, got the coroutine coroutine (await it)"
    assert [first.cr_frame, second.cr_frame] == [None, None]


def test_no_result_is_none_and_no_payload_is_null():
    assert encode_result(None) is None
    assert encode_payload(None) == "null"


def test_a_result_is_named_as_one():
    with pytest.raises(InvalidInput, match=r"^result\.a: expected a finite number, got nan$"):
        encode_result({"a": math.nan})


anything = st.recursive(
    st.none()
    | st.floats()
    | st.integers()
    | st.text(st.characters(codec=None, categories=["Cs", "Cc", "L"]))
    | st.binary()
    | st.datetimes()
    | st.decimals()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.sets(st.text())
    ),
)


@given(anything)
def test_whatever_is_given_becomes_storable_text_or_one_line(value):
    try:
        text = encode_payload(value)
    except InvalidInput as error:
        text = json.dumps(str(error))

    text.encode()
    assert "\n" not in text
    assert "\x00" not in str(json.loads(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" * 4301, "payload holds an integer of more than 4300 digits"),
        ('{"a": 1e400}', "payload holds a number beyond any float"),
        ("1" * 400 + ".5", "payload holds a number beyond any float"),
        ("[" * 200_000 + "]" * 200_000, "payload is nested too deep for Python to read"),
        ("{", "payload is not JSON: Expecting property name enclosed in double quotes at character 1"),
        ("NaN", "payload holds NaN, which is not JSON"),
        ("", "payload is not JSON: Expecting value at character 0"),
    ],
    ids=lambda text: text[:30] or "empty",
)
def test_text_that_python_cannot_hold_is_a_mismatch_of_one_line(text, message):
    with pytest.raises(PayloadMismatch) as refused:
        decode(text)

    assert str(refused.value) == message


@given(st.text())
def test_any_text_is_decoded_or_is_a_mismatch(text):
    with contextlib.suppress(PayloadMismatch):
        assert decode(text) == json.loads(text)


@given(st.text(st.characters(codec=None)), st.integers(0, 400))
def test_bounded_text_fits_and_can_be_stored(text, limit):
    bounded = bound_text(text * 5, limit)

    assert len(bounded.encode()) <= limit
    assert "\x00" not in bounded


def test_a_long_text_keeps_its_head_and_its_tail_and_says_what_is_missing():
    bounded = bound_text("head" + "x" * 1_000_000 + "tail")

    assert bounded.startswith("head")
    assert bounded.endswith("tail")
    assert "934536 characters left out" in bounded
    assert len(bounded.encode()) <= ERROR_BYTES_MAX


def test_what_postgresql_cannot_store_is_replaced():
    assert bound_text("a\x00b\ud800c") == "a\ufffdb\ufffdc"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


def test_an_error_is_described_by_its_type_and_message():
    assert describe_error(KeyError("x")) == "KeyError: 'x'"
    assert describe_error(ValueError()) == "ValueError"


def test_an_error_is_described_with_its_causes():
    error = raised(ValueError("outer"), raised(KeyError("inner")))

    assert describe_error(error) == "ValueError: outer\ncaused by KeyError: 'inner'"


def test_causes_that_form_a_ring_end():
    error = ValueError("x")
    error.__cause__ = error

    assert describe_error(error).count("caused by") == 3


@pytest.mark.parametrize("broken", [ValueError("no"), SystemExit(1), RecursionError()])
def test_an_error_whose_str_raises_is_still_described(broken):
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise broken

    text = describe_error(UnspeakableError())

    assert text == f"UnspeakableError (its message cannot be read: __str__ raised {type(broken).__name__})"


def test_a_message_of_many_megabytes_is_bounded():
    text = describe_error(ValueError("x" * 100_000_000))

    assert text.startswith("ValueError: xxx")
    assert len(text.encode()) <= ERROR_BYTES_MAX


def test_a_group_of_ten_thousand_errors_is_described_by_its_first_five():
    group = ExceptionGroup("many", [ValueError(str(number)) for number in range(10_000)])

    text = describe_error(group)

    assert text.splitlines() == [
        "ExceptionGroup: many (10000 sub-exceptions)",
        *[f"- ValueError: {number}" for number in range(5)],
        "- and 9995 more",
    ]
