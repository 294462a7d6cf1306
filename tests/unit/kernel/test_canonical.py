"""Canonical bytes: those of RFC 8785, or a refusal."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from valdrix.kernel import strict_json
from valdrix.kernel.canonical import (
    NotCanonicalError,
    canonical_bytes,
    is_canonical,
    sha256_hex,
    without_decimals,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"null"),
        (True, b"true"),
        (1, b"1"),
        (-0.0, b"0"),
        (Decimal("-0.0"), b"0"),
        (Decimal("0E+400"), b"0"),
        (Decimal("0E-400"), b"0"),
        (2**53 - 1, b"9007199254740991"),
        (Decimal("1.50"), b"1.5"),
        (Decimal("5.0"), b"5"),
        (Decimal("1E+20"), b"100000000000000000000"),
        (Decimal("1E+21"), b"1e+21"),
        (Decimal("0.000001"), b"0.000001"),
        (Decimal("1E-7"), b"1e-7"),
        (1e30, b"1e+30"),
        ("", b'""'),
        ('\x00\b\t\n\f\r\x1f"\\/\x7f', b'"\\u0000\\b\\t\\n\\f\\r\\u001f\\"\\\\/\x7f"'),
        ("\u2028é😀", '"\u2028é😀"'.encode()),
        ([], b"[]"),
        ((1, (2,)), b"[1,[2]]"),
        ({}, b"{}"),
        ({"b": 1, "a": {"d": None, "c": []}}, b'{"a":{"c":[],"d":null},"b":1}'),
        # RFC 8785 sorts by UTF-16 units: an emoji's surrogates come before U+FB33.
        ({"\ufb33": 1, "😀": 2, "a": 3}, '{"a":3,"😀":2,"\ufb33":1}'.encode()),
        ({"€": 1, "\r": 2, "1": 3}, '{"\\r":2,"1":3,"€":1}'.encode()),
    ],
)
def test_canonical_form(value, expected):
    assert canonical_bytes(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        2**53,
        -(2**53),
        10**400,
        math.nan,
        math.inf,
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("0.1000000000000000000001"),
        Decimal(9007199254740993),
        Decimal("1E+309"),
        Decimal("1E+999999"),
        Decimal("1E-999999"),
        "\ud800",
        {"\ud800": 1},
        {"é": "\udfff"},
        {1: 2},
        {1, 2},
        b"x",
        object(),
    ],
)
def test_what_has_no_canonical_form(value):
    for wrapped in (value, [value], {"é": value}):
        with pytest.raises(NotCanonicalError) as refusal:
            canonical_bytes(wrapped)
        assert "9007199254740992" not in str(refusal.value)


@pytest.mark.parametrize("inner", [1, {"é": Decimal("0.5")}])
@pytest.mark.parametrize("depth", [2000, 5000])
def test_nesting_that_is_too_deep_is_refused(inner, depth):
    value: Any = inner
    for _ in range(depth):
        value = [value]
    with pytest.raises(NotCanonicalError):
        canonical_bytes(value)


@pytest.mark.parametrize("inner", [1, {"é": Decimal("0.5")}])
def test_nesting_as_deep_as_bodies_are_is_written(inner):
    value: Any = inner
    for _ in range(100):
        value = [value]
    assert canonical_bytes(value) == b"[" * 100 + canonical_bytes(inner) + b"]" * 100


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@given(JSON)
def test_both_ways_of_writing_are_rfc_8785(value):
    assert canonical_bytes(value) == rfc8785.dumps(value)


@given(JSON)
def test_what_is_said_to_be_canonical_is(value):
    text = canonical_bytes(value)
    if is_canonical(text):
        assert canonical_bytes(strict_json.loads(text)) == text
    assert not is_canonical(text + b" ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":[1,"x",null,true],"b":{}}', True),
        (b'{"b":1,"a":2}', False),
        (b'{"a":1,"a":1}', False),
        (b'{"a": 1}', False),
        (b'{"a":1.50}', False),
        (b'{"a":9007199254740993}', False),
        (b'{"a":"\\u0000"}', False),
        (b'{"a":"\\u0041"}', False),
        (b'{"a":"\xff"}', False),
        (b"{", False),
    ],
)
def test_what_needs_a_closer_look(text, expected):
    assert is_canonical(text) is expected


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 9)))
def test_the_order_of_keys_is_lost(value):
    assert canonical_bytes(dict(reversed(value.items()))) == canonical_bytes(value)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_written_exactly_or_refused(value):
    try:
        written = canonical_bytes(value)
    except NotCanonicalError:
        return
    assert Decimal(written.decode()) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_survives_as_decimal(value):
    assert canonical_bytes(Decimal(repr(value))) == canonical_bytes(value)


def test_decimals_become_numbers():
    assert without_decimals({"a": [Decimal("1.5")], "b": ("x", None)}) == {
        "a": [1.5],
        "b": ["x", None],
    }


def test_hash():
    assert sha256_hex({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
