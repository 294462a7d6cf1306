"""Canonical bytes: RFC 8785 (JSON Canonicalization Scheme), and their SHA-256.

Everything that is hashed, signed or compared later is hashed over these bytes and stored as
these bytes: what comes back from ``jsonb`` is never hashed.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any, Final

import orjson
import rfc8785

_SAFE_INTEGER: Final = 2**53 - 1


class NotCanonicalError(ValueError):
    """A value has no exact RFC 8785 form, such as an integer above 2^53 - 1."""

    code = "not_canonical"


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 form of a JSON value.

    ``Decimal`` is a JSON number here and must be exactly an IEEE 754 double or a safe integer;
    amounts are strings long before they come here.

    :raises NotCanonicalError: for numbers that a double cannot hold, lone surrogates, nesting
        that is too deep, and other types; the message echoes no value.
    """
    try:
        if _is_plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(without_decimals(value))
    except NotCanonicalError:
        raise
    except (rfc8785.IntegerDomainError, rfc8785.FloatDomainError):
        raise NotCanonicalError("a number is outside what JSON carries exactly") from None
    except RecursionError:
        raise NotCanonicalError("a value is nested too deeply") from None
    except (rfc8785.CanonicalizationError, TypeError, ValueError, OverflowError) as error:
        raise NotCanonicalError("a value has no canonical JSON form") from error


def is_canonical(text: bytes) -> bool:
    """Tell at once that bytes are the RFC 8785 form of strict JSON; False where it takes a closer look.

    What comes out as it went in had no key twice, no blank and no other order.
    """
    if b"\\u" in text:
        return False  # NUL and surrogates can only be written so.
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return _is_plain(value) and orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == text


def sha256_hex(value: Any) -> str:
    """Return the lower-case hex SHA-256 of a value's canonical bytes."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


_PLAIN: Final = frozenset({str, bool, type(None)})


def _is_plain(value: Any) -> bool:
    """Tell whether orjson's bytes are RFC 8785 bytes: ASCII keys, no float, no big integer."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is int:
        is_safe: bool = -_SAFE_INTEGER <= value <= _SAFE_INTEGER
        return is_safe
    if kind is list or kind is tuple:
        return all(type(item) in _PLAIN or _is_plain(item) for item in value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                return False
            # Most members are texts: no call for each of them.
            if type(item) not in _PLAIN and not _is_plain(item):
                return False
        return True
    return False


def without_decimals(value: Any) -> Any:
    """Return a JSON value with each ``Decimal`` as the equal ``int`` or ``float``.

    :raises NotCanonicalError: for a number that a double does not hold exactly.
    """
    if isinstance(value, Decimal):
        return _exact_number(value)
    if isinstance(value, dict):
        return {key: without_decimals(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_decimals(item) for item in value]
    return value


def _exact_number(value: Decimal) -> int | float:
    if value.is_zero():
        return 0
    if not value.is_finite() or value.adjusted() > 308 or value.adjusted() < -324:
        raise NotCanonicalError("a number is outside the range of a double")
    number = float(value)
    if Decimal(repr(number)) != value:
        raise NotCanonicalError("a number has more digits than a double holds")
    return number
