"""Fields: each reader's accepted and refused values, and that every fault is told."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valdrix.kernel.fields import METADATA_LIMIT_BYTES, Fields
from valdrix.kernel.problems import FieldError, InvalidRequest

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
IDENTIFIER = "0192f0c1-2b3c-7d4e-8f50-617283940a1b"

READERS: dict[str, Any] = {
    "text": lambda fields, **more: fields.text("x", **more),
    "prose": lambda fields, **more: fields.prose("x", **more),
    "amount": lambda fields, **more: fields.amount("x", places=4, **more),
    "integer": lambda fields, **more: fields.integer("x", minimum=-1, maximum=9, **more),
    "choice": lambda fields, **more: fields.choice("x", ("a", "b"), **more),
    "identifier": lambda fields, **more: fields.identifier("x", **more),
    "time": lambda fields, **more: fields.time("x", **more),
    "document": lambda fields, **more: fields.document("x", **more),
}

TAKEN = [
    ("text", "x" * 200, "x" * 200),
    ("text", " é x ", " é x "),
    ("prose", "a\nb\r\n\tc", "a\nb\r\n\tc"),
    ("amount", "1.5", Decimal("1.5000")),
    ("amount", 3, Decimal(3)),
    ("integer", -1, -1),
    ("integer", 9, 9),
    ("integer", Decimal("1.0"), 1),
    ("integer", Decimal("-1E0"), -1),
    ("choice", "b", "b"),
    ("identifier", IDENTIFIER, uuid.UUID(IDENTIFIER)),
    ("identifier", IDENTIFIER.upper(), uuid.UUID(IDENTIFIER)),
    ("time", "2026-01-31T12:00:00Z", MOMENT),
    ("time", "2026-01-31T14:00:00.000+02:00", MOMENT),
    ("time", "2026-01-31T11:59:59.5-00:00", datetime(2026, 1, 31, 11, 59, 59, 500_000, UTC)),
    ("document", {}, {}),
    ("document", {"a": [1, None]}, {"a": [1, None]}),
    ("document", {"a": "x" * (METADATA_LIMIT_BYTES - 8)}, {"a": "x" * (METADATA_LIMIT_BYTES - 8)}),
]

REFUSED = [
    ("text", 1, "invalid_type"),
    ("text", "", "invalid_value"),
    ("text", " \u2003", "invalid_value"),
    ("text", "x" * 201, "too_long"),
    ("text", "a\nb", "invalid_value"),
    ("text", "a\x00", "invalid_value"),
    ("text", "a\u200b", "invalid_value"),
    ("text", "\ud800", "invalid_value"),
    ("prose", [], "invalid_type"),
    ("prose", "\n\t", "invalid_value"),
    ("prose", "x" * 2001, "too_long"),
    ("prose", "a\x1b[0m", "invalid_value"),
    ("amount", "1e3", "invalid_amount"),
    ("amount", True, "invalid_amount"),
    ("amount", 1.5, "invalid_amount"),
    ("integer", True, "invalid_type"),
    ("integer", "1", "invalid_type"),
    ("integer", Decimal("1.5"), "invalid_type"),
    ("integer", Decimal("1E+1000000"), "invalid_type"),
    ("integer", Decimal("NaN"), "invalid_type"),
    ("integer", 10, "out_of_range"),
    ("integer", -2, "out_of_range"),
    ("choice", "A", "invalid_choice"),
    ("choice", [], "invalid_choice"),
    ("identifier", 1, "invalid_value"),
    ("identifier", IDENTIFIER.replace("-", ""), "invalid_value"),
    ("identifier", "{" + "0" * 32 + "-" + "-" + "}", "invalid_value"),
    ("identifier", "0_0_0_0_-0000-0000-0000-000000000000", "invalid_value"),
    ("identifier", "+0000000-0000-0000-0000-000000000000", "invalid_value"),
    ("identifier", "٣0000000-0000-0000-0000-000000000000", "invalid_value"),
    ("identifier", " 0000000-0000-0000-0000-000000000000", "invalid_value"),
    ("identifier", IDENTIFIER + "\n", "invalid_value"),
    ("time", 0, "invalid_value"),
    ("time", "2026-01-31", "invalid_value"),
    ("time", "2026-01-31T12:00:00", "invalid_value"),
    ("time", "2026-01-31 12:00:00Z", "invalid_value"),
    ("time", "2025-W01-1T12:00:00Z", "invalid_value"),
    ("time", "2026-02-30T12:00:00Z", "invalid_value"),
    ("time", "2026-01-31T24:00:01Z", "invalid_value"),
    ("time", "2026-01-31T12:00:60Z", "invalid_value"),
    ("time", "2026-01-31T12:00:00+25:00", "invalid_value"),
    ("time", "9999-12-31T23:59:59-14:00", "invalid_value"),
    ("time", "0001-01-01T00:00:00+14:00", "invalid_value"),
    ("time", "0000-01-01T00:00:00Z", "invalid_value"),
    ("time", "2026-01-31T12:00:00Z\n", "invalid_value"),
    ("time", "٢026-01-31T12:00:00Z", "invalid_value"),
    ("document", [], "invalid_type"),
    ("document", {"a": "x" * METADATA_LIMIT_BYTES}, "too_long"),
    ("document", {"a": 2**53}, "invalid_value"),
    ("document", {"a": Decimal("1E+400")}, "invalid_value"),
    ("document", {"a": "\ud800"}, "invalid_value"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), TAKEN)
def test_taken(kind, value, expected):
    fields = Fields({"x": value})
    assert READERS[kind](fields) == expected
    fields.finish()


@pytest.mark.parametrize(("kind", "value", "code"), REFUSED)
def test_refused(kind, value, code):
    fields = Fields({"x": value}, pointer="/items/3")
    assert READERS[kind](fields) is None
    assert [(error.pointer, error.code) for error in fields.errors] == [("/items/3/x", code)]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("body", [{}, {"x": None}])
def test_absent_and_null_are_alike(kind, body):
    fields = Fields(body)
    assert READERS[kind](fields) is None
    fields.finish()
    required = Fields(body)
    assert READERS[kind](required, required=True) is None
    assert required.errors == [FieldError("/x", "required", "is required")]


def test_boolean():
    assert Fields({"x": False}).boolean("x", default=True) is False
    assert Fields({}).boolean("x", default=True) is True
    for wrong in ("true", 1, 0, []):
        fields = Fields({"x": wrong})
        assert fields.boolean("x", default=False) is False
        assert fields.errors[0].code == "invalid_type"


def test_pattern_matches_the_whole_value():
    pattern = re.compile("[a-z]+")
    assert Fields({"x": "abc"}).text("x", pattern=pattern) == "abc"
    for wrong in ("abc1", "1abc"):
        fields = Fields({"x": wrong})
        assert fields.text("x", pattern=pattern) is None
        assert fields.errors


def test_no_value_is_echoed():
    fields = Fields({"x": {"hunter2": 2**60}, "y": "hunter2\n", "z": "hunter2"})
    fields.document("x")
    fields.text("y")
    fields.choice("z", ("a",))
    assert len(fields.errors) == 3
    assert "hunter2" not in repr(fields.errors)
    assert str(2**60) not in repr(fields.errors)


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_what_is_no_object(body):
    with pytest.raises(InvalidRequest) as refusal:
        Fields(body, pointer="/a").finish()
    assert refusal.value.errors == (FieldError("/a", "invalid_type", "must be an object"),)
    assert refusal.value.status == 422


def test_unknown_fields_are_named_with_pointers():
    fields = Fields({"known": 1, "a/b~c": 2, "": 3}, pointer="/x")
    fields.integer("known", minimum=0, maximum=9)
    with pytest.raises(InvalidRequest) as refusal:
        fields.finish()
    assert [error.pointer for error in refusal.value.errors] == ["/x/a~1b~0c", "/x/"]
    assert {error.code for error in refusal.value.errors} == {"unknown_field"}


def test_very_many_unknown_fields_get_a_short_answer():
    with pytest.raises(InvalidRequest) as refusal:
        Fields({f"{n}{'x' * 1000}": n for n in range(5000)}).finish()
    assert len(refusal.value.errors) == 21
    assert refusal.value.errors[-1].detail == "5000 unknown fields in all"
    assert all(len(error.pointer) <= 81 for error in refusal.value.errors)


def test_every_fault_is_told_at_once():
    fields = Fields({"a": 1, "b": "1e3", "c": "x", "d": 1})
    fields.text("a")
    fields.amount("b", places=4)
    fields.identifier("c")
    fields.text("e", required=True)
    with pytest.raises(InvalidRequest) as refusal:
        fields.finish()
    assert [error.pointer for error in refusal.value.errors] == ["/a", "/b", "/c", "/e", "/d"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_value_is_read_or_refused(value):
    for read in READERS.values():
        fields = Fields({"x": value})
        found = read(fields)
        assert (found is None) == (value is None or bool(fields.errors))
