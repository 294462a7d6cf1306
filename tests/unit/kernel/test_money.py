"""Amounts: what is taken, what is refused, and that nothing is rounded twice or unseen."""

from __future__ import annotations

import decimal
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from valdrix.kernel.money import (
    HOURLY_PLACES,
    MAGNITUDE_LIMIT,
    MONTHLY_PLACES,
    AmountError,
    deltas_agree,
    hourly_from_monthly,
    monthly_from_hourly,
    parse_amount,
    round_amount,
    to_text,
)

MONTHS = st.decimals(-(10**9), 10**9, places=4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", "0.0000"),
        ("-0", "0.0000"),
        ("-0.0000", "0.0000"),
        ("12.5", "12.5000"),
        ("-12.5001", "-12.5001"),
        ("1000000000000", "1000000000000.0000"),
        ("-1000000000000.0000", "-1000000000000.0000"),
        (7, "7.0000"),
        (-7, "-7.0000"),
        (10**12, "1000000000000.0000"),
        (Decimal("0.1"), "0.1000"),
        (Decimal("1E+3"), "1000.0000"),
        (Decimal("1.50000000"), "1.5000"),
        (Decimal("0E-999999"), "0.0000"),
        (Decimal("0E+999999"), "0.0000"),
        (Decimal("-0.0"), "0.0000"),
    ],
)
def test_taken(value, expected):
    assert to_text(parse_amount(value, places=MONTHLY_PLACES)) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "1 ", " 1", "1\n", "+5", "1e3", "1E3", "1_000", "1,000", ".5", "5.", "01", "00",
        "--1", "-", "0x10", "NaN", "nan", "Infinity", "-Infinity", "٣", "１", "1\u200b", "$5", "½",
        "1.23456", "1.00000", "1000000000000.0001", "1000000000001", "9" * 64, "9" * 100_000,
        "0." + "0" * 100_000,
    ],
)  # fmt: skip
def test_refused_strings(value):
    with pytest.raises(AmountError):
        parse_amount(value, places=MONTHLY_PLACES)


@pytest.mark.parametrize(
    "value",
    [
        True, False, None, 1.5, [], {}, b"1", (),
        Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity"),
        Decimal("0.00001"), Decimal("1E-400"), Decimal("1E-999999"), Decimal("1E+1000000"),
        Decimal("1000000000000.00000000000000000000000000000001"),
        10**12 + 1, -(10**12) - 1, 10**400,
    ],
)  # fmt: skip
def test_refused_values(value):
    with pytest.raises(AmountError) as refusal:
        parse_amount(value, places=MONTHLY_PLACES)
    assert refusal.value.code == "invalid_amount"


def test_hourly_amounts_have_six_places():
    assert to_text(parse_amount("0.123456", places=HOURLY_PLACES)) == "0.123456"
    assert to_text(parse_amount("0", places=HOURLY_PLACES)) == "0.000000"
    with pytest.raises(AmountError):
        parse_amount("0.1234567", places=HOURLY_PLACES)


@given(st.integers(-(10**16), 10**16))
def test_a_string_and_a_number_name_the_same_amount(units):
    number = Decimal(units).scaleb(-4)
    parsed = parse_amount(format(number, "f"), places=MONTHLY_PLACES)
    assert parsed == parse_amount(number, places=MONTHLY_PLACES) == number
    assert parsed.as_tuple().exponent == -MONTHLY_PLACES


@given(st.none() | st.booleans() | st.integers() | st.decimals() | st.text() | st.floats())
def test_any_value_is_an_amount_or_a_refusal(value):
    for places in (MONTHLY_PLACES, HOURLY_PLACES):
        try:
            amount = parse_amount(value, places=places)
        except AmountError:
            continue
        assert amount == Decimal(value)
        assert abs(amount) <= MAGNITUDE_LIMIT
        assert to_text(amount).rpartition(".")[2].__len__() == places


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.00005", "0.0001"),
        ("-0.00005", "-0.0001"),
        ("0.00004999999999999999999999999999999999999999", "0.0000"),
        ("-0.00004", "0.0000"),
        ("0.00015", "0.0002"),
        ("0.00025", "0.0003"),
        ("1000000000000.00004", "1000000000000.0000"),
        ("1E-999999", "0.0000"),
        ("1." + "9" * 500, "2.0000"),
    ],
)
def test_rounding_is_half_up_and_zero_has_no_sign(value, expected):
    assert to_text(round_amount(Decimal(value), places=MONTHLY_PLACES)) == expected


@pytest.mark.parametrize(
    "value", ["1000000000000.00005", "-1000000000001", "1E+999999", "NaN", "Infinity", "-Infinity"]
)
def test_what_cannot_be_rounded_into_a_column(value):
    with pytest.raises(AmountError):
        round_amount(Decimal(value), places=MONTHLY_PLACES)


@given(st.lists(st.decimals(-(10**6), 10**6, places=9), max_size=50))
def test_rounding_an_exact_sum_equals_arithmetic_on_fractions(parts):
    exact = sum(map(Fraction, parts), Fraction(0))
    rounded = round_amount(sum(parts, Decimal(0)), places=MONTHLY_PLACES)
    assert abs(Fraction(rounded) - exact) <= Fraction(1, 20_000)
    assert not rounded.is_signed() or rounded != 0


@given(MONTHS)
@example(Decimal("999999999999.9999"))
@example(Decimal("0.0001"))
def test_a_derived_hour_agrees_with_its_month(monthly):
    assert deltas_agree(monthly=monthly, hourly=hourly_from_monthly(monthly))


@given(st.decimals(-(10**6), 10**6, places=6))
@example(Decimal("0.000001"))
def test_a_derived_month_agrees_with_its_hour(hourly):
    assert deltas_agree(monthly=monthly_from_hourly(hourly), hourly=hourly)


def test_deltas_that_differ_by_more_than_rounding():
    assert deltas_agree(monthly=Decimal("73.0004"), hourly=Decimal("0.100000"))
    assert not deltas_agree(monthly=Decimal("73.0005"), hourly=Decimal("0.100000"))
    assert not deltas_agree(monthly=Decimal("72.9995"), hourly=Decimal("0.100000"))
    assert not deltas_agree(monthly=Decimal(-73), hourly=Decimal("0.1"))


def test_a_month_above_the_limit_is_refused():
    with pytest.raises(AmountError):
        monthly_from_hourly(MAGNITUDE_LIMIT)


def test_a_narrow_context_of_the_caller_changes_nothing():
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_FLOOR):
        parsed = parse_amount("123456789.1234", places=MONTHLY_PLACES)
        rounded = round_amount(Decimal("123456789.12345"), places=MONTHLY_PLACES)
        assert deltas_agree(monthly=parsed, hourly=hourly_from_monthly(parsed))
        assert not deltas_agree(monthly=parsed, hourly=hourly_from_monthly(parsed - 1000))
    assert to_text(parsed) == "123456789.1234"
    assert to_text(rounded) == "123456789.1235"
    assert Decimal("123456789.12345").quantize(Decimal("0.0001"), ROUND_HALF_UP) == rounded


def test_text_is_plain():
    assert to_text(Decimal("1E+3")) == "1000"
    assert to_text(Decimal("1E-6")) == "0.000001"
