"""Typed payloads: what fits an annotation, and the one line that says what does not."""

from __future__ import annotations

import sys
import typing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Literal, NewType, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleworkflow.codec import decode, encode_payload
from simpleworkflow.errors import PayloadMismatch
from simpleworkflow.payloads import payload_reader

T = TypeVar("T")
CustomerId = NewType("CustomerId", int)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    text: str
    price: float = 0.0


@dataclass
class Invoice:
    id: str
    amount: float
    lines: list[Line] = field(default_factory=list)
    due_at: datetime | None = None
    colour: Colour = Colour.RED
    kind: Literal["new", "old"] = "new"
    customer: CustomerId = CustomerId(1)


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


@dataclass
class Everything:
    key: UUID
    day: date
    at: datetime
    price: Decimal
    colour: Colour
    pair: tuple[int, str]
    many: tuple[int, ...]
    by_name: dict[str, float]
    either: int | str
    anything: Any


@dataclass
class Positive:
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("count must be positive")


@dataclass
class Page(Generic[T]):
    items: list[T]


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    amount: float
    at: datetime | None = None


class Record(msgspec.Struct):
    amount: float
    names: list[str] = []


def test_a_dataclass_is_built_from_an_object_with_its_nested_parts_and_defaults():
    read = payload_reader(Invoice)

    invoice = read({"id": "INV-1", "amount": 3, "lines": [{"text": "a", "price": 1.5}]})

    assert invoice == Invoice(id="INV-1", amount=3.0, lines=[Line("a", 1.5)])
    assert type(invoice.amount) is float


def test_unknown_fields_are_ignored_so_that_a_producer_may_be_newer():
    read = payload_reader(Line)

    line = read({"text": "a", "colour": "red"})

    assert line == Line("a")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"id": "a", "amount": "12"}, "payload.amount: expected float, got str '12'"),
        ({"id": "a", "amount": True}, "payload.amount: expected float, got true"),
        ({"id": "a", "amount": 10**400}, "payload.amount: expected float, got int"),
        ({"id": "a"}, "payload.amount: expected a value, got none"),
        ([], "payload: expected object (Invoice), got list"),
        (None, "payload: expected object (Invoice), got null"),
        ({"id": 7, "amount": 1}, "payload.id: expected str, got int 7"),
        (
            {"id": "a", "amount": 1, "lines": [{"text": "a"}, {"text": 2}]},
            "payload.lines[1].text: expected str, got int 2",
        ),
        (
            {"id": "a", "amount": 1, "due_at": "2024-01-01T00:00"},
            "payload.due_at: expected datetime in ISO 8601 with a time zone, got str '2024-01-01T00:00'",
        ),
        (
            {"id": "a", "amount": 1, "colour": "green"},
            "payload.colour: expected one of 'red', 'blue', got str 'green'",
        ),
        (
            {"id": "a", "amount": 1, "kind": "odd"},
            "payload.kind: expected 'new' or 'old', got str 'odd'",
        ),
        ({"id": "a", "amount": 1, "customer": 1.0}, "payload.customer: expected int, got float 1.0"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_by_the_name_of_its_field(payload, message):
    read = payload_reader(Invoice)

    with pytest.raises(PayloadMismatch) as refused:
        read(payload)

    assert str(refused.value) == message


def test_what_the_codec_writes_of_a_dataclass_the_reader_reads_back():
    value = Everything(
        key=UUID(int=7),
        day=date(2024, 2, 29),
        at=datetime(2024, 1, 1, 12, tzinfo=UTC),
        price=Decimal("12.50"),
        colour=Colour.BLUE,
        pair=(1, "a"),
        many=(1, 2, 3),
        by_name={"a": 1.5},
        either="x",
        anything=[1, {"b": None}],
    )

    read = payload_reader(Everything)(decode(encode_payload(value)))

    assert read == value


def test_a_class_may_refer_to_itself():
    read = payload_reader(Tree)

    tree = read({"name": "a", "children": [{"name": "b"}]})

    assert tree == Tree("a", [Tree("b")])


def test_a_payload_nested_too_deep_for_python_is_a_mismatch_and_no_crash():
    payload: dict[str, Any] = {"name": "a"}
    for _ in range(sys.getrecursionlimit()):
        payload = {"name": "a", "children": [payload]}

    with pytest.raises(PayloadMismatch, match="too deep"):
        payload_reader(Tree)(payload)


def test_what_post_init_refuses_does_not_fit():
    read = payload_reader(Positive)

    with pytest.raises(PayloadMismatch) as refused:
        read({"count": 0})

    assert str(refused.value) == "payload: Positive refused it: count must be positive"


@pytest.mark.parametrize("annotation", [Any, object])
def test_without_a_type_the_payload_stays_as_it_is(annotation):
    payload = {"a": [1]}

    read = payload_reader(annotation)(payload)

    assert read is payload


def test_a_plain_dict_annotation_keeps_the_object_and_refuses_an_array():
    payload = {"a": [1]}
    read = payload_reader(dict)

    assert read(payload) is payload

    with pytest.raises(PayloadMismatch, match="expected object, got list"):
        read([1])


def test_in_a_union_the_member_of_exactly_the_value_s_type_wins():
    read = payload_reader(float | int | str)

    values = [read(3), read(3.0), read("3")]

    assert [type(value) for value in values] == [int, float, str]


def test_a_union_that_nothing_fits_names_all_its_members():
    read = payload_reader(int | str | None)

    with pytest.raises(PayloadMismatch) as refused:
        read([])

    assert str(refused.value) == "payload: expected int or str or null, got list"


def test_an_optional_class_says_what_is_wrong_inside_it():
    read = payload_reader(Optional[Line])  # noqa: UP045 - the older spelling must work too

    with pytest.raises(PayloadMismatch) as refused:
        read({"text": 1})

    assert read(None) is None
    assert str(refused.value) == "payload.text: expected str, got int 1"


def test_true_is_not_the_literal_one():
    read = payload_reader(Literal[1, "a"])

    with pytest.raises(PayloadMismatch):
        read(True)

    assert read(1) == 1


def test_a_typed_dict_is_checked_at_its_own_level_and_passed_on_unchanged():
    payload = {"street": "Elm", "extra": object}
    read = payload_reader(Address)

    assert read(payload) is payload

    with pytest.raises(PayloadMismatch, match=r"payload\.street: expected a value, got none"):
        read({})
    with pytest.raises(PayloadMismatch, match=r"payload\.number: expected int, got str 'x'"):
        read({"street": "Elm", "number": "x"})


def test_a_generic_dataclass_is_read_with_its_parameters_open():
    read = payload_reader(Page[int])

    page = read({"items": [1, "a"]})

    assert page == Page(items=[1, "a"])  # type: ignore[list-item]


def test_a_strict_pydantic_model_reads_the_payload_as_json():
    read = payload_reader(Model)

    model = read({"amount": 1.5, "at": "2024-01-01T00:00:00Z"})

    assert model == Model(amount=1.5, at=datetime(2024, 1, 1, tzinfo=UTC))


def test_a_pydantic_model_that_does_not_fit_is_named_by_its_field():
    read = payload_reader(list[Model])

    with pytest.raises(PayloadMismatch) as refused:
        read([{"amount": "x", "at": 1}])

    assert str(refused.value).startswith(
        "payload[0].amount: Input should be a valid number, got str 'x' (and 1 more)"
    )


def test_a_msgspec_struct_is_built_and_refused_by_the_name_of_its_field():
    read = payload_reader(Record)

    assert read({"amount": 1, "names": ["a"]}) == Record(1.0, ["a"])

    with pytest.raises(PayloadMismatch) as refused:
        read({"amount": 1, "names": [2]})
    assert str(refused.value) == "payload.names[0]: Expected `str`, got `int`"


@pytest.mark.parametrize("annotation", [complex, bytes, set[int], dict[int, str], "Invoice", typing.Callable])
def test_an_annotation_that_no_payload_can_fit_is_refused_when_the_handler_is_registered(annotation):
    with pytest.raises(TypeError, match="expected a payload annotation"):
        payload_reader(annotation)


def test_a_class_whose_annotations_cannot_be_found_is_refused_with_the_remedy():
    @dataclass
    class Local:
        part: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="define what they name at module level"):
        payload_reader(Local)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "annotation", [Invoice, Everything, Tree, Model, Record, Address, list[Line], Colour]
)
@given(payload=json_values)
def test_any_json_value_is_read_or_is_a_mismatch_of_one_line(annotation, payload):
    read = payload_reader(annotation)

    try:
        read(payload)
    except PayloadMismatch as error:
        message = str(error)
    else:
        message = "payload"

    assert message.startswith("payload")
    assert "\n" not in message
    assert len(message) < 1000
