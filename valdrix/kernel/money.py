"""Amounts: exact decimals in US dollars, parsed strictly and rounded once.

Monthly amounts hold 4 decimals, hourly ones 6 (SPEC 3.2). Nothing here passes through a float.
"""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import Final

MONTHLY_PLACES: Final = 4
HOURLY_PLACES: Final = 6
HOURS_PER_MONTH: Final = Decimal(730)
MAGNITUDE_LIMIT: Final = Decimal(10) ** 12
"""No request may name an amount above this magnitude, in US dollars."""

ZERO: Final = Decimal("0.0000")
ZERO_HOURLY: Final = Decimal("0.000000")

EXACT: Final = decimal.Context(
    prec=120,
    rounding=decimal.ROUND_HALF_UP,
    traps=[
        decimal.InvalidOperation,
        decimal.DivisionByZero,
        decimal.Overflow,
    ],
)
"""Wide enough that sums of documents lose nothing before they are rounded, once, at the end."""

_GRAMMAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_MAX_TEXT: Final = 64
_UNITS: Final = {
    MONTHLY_PLACES: Decimal(1).scaleb(-MONTHLY_PLACES),
    HOURLY_PLACES: Decimal(1).scaleb(-HOURLY_PLACES),
}


class AmountError(ValueError):
    """A value is not an amount that the column can hold exactly."""

    code = "invalid_amount"


def parse_amount(value: object, *, places: int) -> Decimal:
    """Return the exact amount that a request's JSON value names (SPEC 3.2).

    :param value: a string in plain ASCII decimal grammar, an ``int`` or a ``Decimal`` as the
        strict JSON parser yields them.
    :param places: decimals that the column holds, ``MONTHLY_PLACES`` or ``HOURLY_PLACES``.
    :raises AmountError: for another type or grammar, more decimals, NaN, Infinity, or a
        magnitude above 1e12.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise AmountError("must be a decimal string or a number")
    if isinstance(value, str):
        if len(value) > _MAX_TEXT or not _GRAMMAR.fullmatch(value):
            raise AmountError(
                "must be a plain decimal such as 12.50, without sign +, exponent, "
                "blanks or separators"
            )
        number = Decimal(value)
        if len(value.partition(".")[2]) > places:
            raise AmountError(f"has more than {places} decimals")
    else:
        number = Decimal(value)
    return _checked(number, places)


def _checked(number: Decimal, places: int) -> Decimal:
    if not number.is_finite():
        raise AmountError("must be a finite number")
    if number.is_zero():
        return ZERO if places == MONTHLY_PLACES else ZERO_HOURLY
    # The exponent is compared before any arithmetic: Decimal("1e1000000") must cost nothing.
    if number.adjusted() > MAGNITUDE_LIMIT.adjusted() or number.copy_abs() > MAGNITUDE_LIMIT:
        raise AmountError("must not be above 1000000000000 in magnitude")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    while exponent < -places and digits and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    if exponent < -places:
        raise AmountError(f"has more than {places} decimals")
    return EXACT.quantize(Decimal((sign, digits, exponent)), _UNITS[places])


def round_amount(value: Decimal, *, places: int) -> Decimal:
    """Round an exact sum to the column's decimals, half up, and drop a negative zero.

    :raises AmountError: when the magnitude is above 1e12.
    """
    if not value.is_finite() or (not value.is_zero() and value.adjusted() > 12):
        raise AmountError("must not be above 1000000000000 in magnitude")
    rounded = EXACT.quantize(value, _UNITS[places])
    if rounded.copy_abs() > MAGNITUDE_LIMIT:
        raise AmountError("must not be above 1000000000000 in magnitude")
    return rounded.copy_abs() if rounded.is_zero() else rounded


def monthly_from_hourly(hourly: Decimal) -> Decimal:
    """Return the monthly amount of an hourly one, at 730 hours a month (SPEC 3.1)."""
    return round_amount(EXACT.multiply(hourly, HOURS_PER_MONTH), places=MONTHLY_PLACES)


def hourly_from_monthly(monthly: Decimal) -> Decimal:
    """Return the hourly amount of a monthly one, at 730 hours a month (SPEC 3.1)."""
    return round_amount(EXACT.divide(monthly, HOURS_PER_MONTH), places=HOURLY_PLACES)


def deltas_agree(*, monthly: Decimal, hourly: Decimal) -> bool:
    """Tell whether two deltas name the same cost, within the rounding of their columns.

    An hourly amount is exact to half a millionth, so 730 of them are exact to 0.000365.
    """
    tolerance = Decimal("0.000415")
    difference = EXACT.subtract(EXACT.multiply(hourly, HOURS_PER_MONTH), monthly)
    return difference.copy_abs() <= tolerance


def to_text(value: Decimal) -> str:
    """Return an amount as JSON responses and canonical bytes carry it: plain, never exponential."""
    return format(value, "f")
