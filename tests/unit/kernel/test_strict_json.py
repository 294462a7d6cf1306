"""Strict JSON: what a body may be before anything looks at its fields."""

from __future__ import annotations

import json
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valdrix.kernel.strict_json import MAX_DEPTH, StrictJsonError, TooManyValuesError, loads


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"null", None),
        (b" \t\r\n1 \n", 1),
        (b"-0", 0),
        (b"1.50", Decimal("1.50")),
        (b"1e3", Decimal("1E+3")),
        (b"1e400", Decimal("1E+400")),
        (b"0.1", Decimal("0.1")),
        (b"1" + b"0" * 399, 10**399),
        (b"1" + b"0" * 500, Decimal(10**500)),
        (b'"\\ud83d\\ude00"', "😀"),
        ('"😀é"'.encode(), "😀é"),
        (b'"\\u0041\\/\\n"', "A/\n"),
        (b'{"a":{"a":1},"b":[{"a":2}]}', {"a": {"a": 1}, "b": [{"a": 2}]}),
        (b'"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["', "[" * 66),
    ],
)
def test_taken(body, expected):
    found = loads(body)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"nul", b"True", b"'a'", b"{a:1}", b"01", b"-", b"+1", b"1.", b".5", b"1e", b"0x1",
        b"[1,]", b'{"a":1,}', b"[1]x", b"{} {}", b"/* */1", b"NaN", b"[Infinity]", b"-Infinity",
        b'{"a":1,"a":1}', b'{"a":1,"\\u0061":2}', b'[{"x":{"a":1,"b":2,"a":3}}]',
        b'"\x00"', b'"\x01"', b'"\n"', b'"\\u0000"', b'{"\\u0000":1}', b'"\\x41"', b'"\\u12"',
        b'"\\ud800"', b'["\\udc00x"]', b'{"\\ud800":1}', b'"\\ude00\\ud83d"',
        b"\xef\xbb\xbf1", b"\xff", b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf5\x80\x80\x80"',
        b"1e99999999999999999999", b"1e-99999999999999999999", b"1" * 1001, b"0." + b"1" * 1000,
        "１".encode(), b"\xc2\xa01",
    ],
)  # fmt: skip
def test_refused(body):
    with pytest.raises(StrictJsonError) as refusal:
        loads(body)
    assert refusal.value.code == "malformed_json"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("inner", [b"1", b"[]", b"{}", b'"x"'])
def test_depth_is_counted_in_containers(opening, closing, inner):
    own = int(inner in (b"[]", b"{}"))

    def nested(depth: int) -> bytes:
        return opening * (depth - own) + inner + closing * (depth - own)

    loads(nested(MAX_DEPTH))
    with pytest.raises(StrictJsonError, match="nested deeper than 64 levels"):
        loads(nested(MAX_DEPTH + 1))
    with pytest.raises(StrictJsonError, match="nested deeper"):
        loads(nested(200_000))


def test_depth_counts_one_path_and_not_all_of_them():
    assert len(loads(b"[" + b",".join([b"[[1]]"] * 1000) + b"]", max_depth=3)) == 1000
    with pytest.raises(StrictJsonError):
        loads(b"[[1],[[1]]]", max_depth=2)


def test_messages_echo_nothing():
    with pytest.raises(StrictJsonError) as refusal:
        loads(b'{"token": "hunter2" "x"}')
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(StrictJsonError) as refusal:
        loads(b'{"hunter2":1,"hunter2":2}')
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 300_000, b"9" * 1_000_000, b"1e" + b"9" * 1_000_000],
)
def test_hostile_bodies_are_refused_fast(body):
    started = time.perf_counter()
    with pytest.raises(StrictJsonError):
        loads(body)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("inner", [b"[]", b"{}", b"[" * 60 + b"]" * 60, b'{"a":[]}'])
def test_a_long_run_of_brackets_is_refused_before_it_is_parsed(inner):
    body = b"[" + b",".join([inner] * 100_000) + b"]"

    with pytest.raises(TooManyValuesError, match=r"brackets|values"):
        loads(body, max_values=5_000_000)


def test_brackets_that_hold_something_are_taken():
    few = b"[" + b",".join([b"[]"] * 10_000) + b"]"
    plan = b"[" + b",".join([b'{"address":"module.web","tags":{}}'] * 20_000) + b"]"

    assert len(loads(few, max_values=5_000_000)) == 10_000
    assert len(loads(plan, max_values=5_000_000)) == 20_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(JSON, st.booleans())
def test_what_json_writes_is_read_back(value, is_ascii):
    text = json.dumps(value, ensure_ascii=is_ascii)
    if "\\u0000" in text:
        with pytest.raises(StrictJsonError):
            loads(text.encode())
    else:
        assert loads(text.encode()) == value


@given(st.binary())
def test_any_bytes_are_a_value_or_a_refusal(body):
    try:
        loads(body)
    except StrictJsonError:
        return
    json.loads(body)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_digit(value):
    text = str(value)
    if len(text) < 1000:
        assert loads(text.encode()) == value
