"""Strict JSON: what a request body must be before anything looks at its fields (SPEC 3.2, 17).

Duplicate keys, NaN and Infinity, NUL, lone surrogates, invalid UTF-8 and deep nesting are
refused; numbers with a fraction or an exponent become ``Decimal``, never ``float``.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

MAX_DEPTH: Final = 64
_MAX_INTEGER_DIGITS: Final = 400
_MAX_NUMBER_TEXT: Final = 1000
_ANY_CONTAINERS: Final = 20_000
_BYTES_PER_CONTAINER: Final = 12
"""Plans and estimates without any blank have more than 35; what is denser was made to hold a worker."""


class StrictJsonError(ValueError):
    """The bytes are not JSON that Valdrix reads."""

    code = "malformed_json"


class TooManyValuesError(StrictJsonError):
    """The document holds more values than its reader takes."""


def loads(body: bytes, *, max_depth: int = MAX_DEPTH, max_values: int | None = None) -> Any:
    """Parse one JSON document.

    :param max_depth: how many containers may be nested.
    :param max_values: how many values it may hold, a third of them containers, judged before it
        is parsed by its commas and brackets, those inside strings included; None takes any number.
    :raises TooManyValuesError: for more, and for a long run of brackets; nothing was parsed.
    :raises StrictJsonError: with a message that names the fault and echoes no value.
    """
    containers = body.count(b"{") + body.count(b"[")
    reason = None if max_values is None else _find_excess(body, containers, max_values)
    if reason is not None:
        if b"[" * (max_depth + 1) in body:
            raise StrictJsonError(f"nested deeper than {max_depth} levels")
        raise TooManyValuesError(reason)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"invalid UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise StrictJsonError("a byte order mark is not allowed")
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise StrictJsonError(
            f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise StrictJsonError(f"nested deeper than {max_depth} levels") from None
    # Raw control characters and surrogates cannot pass the steps above; only escapes can make
    # them, so the walk over every string is paid only by documents that have such an escape.
    if containers > max_depth or "\\u" in text:
        _walk(document, max_depth)
    return document


def _find_excess(body: bytes, containers: int, max_values: int) -> str | None:
    """Return why a body holds more than its reader takes, judged without parsing it."""
    # A container costs a multiple of a plain value, so that fewer of them are taken.
    if containers * 3 > max_values or containers + body.count(b",") > max_values:
        return f"holds more than {max_values} values"
    if containers > _ANY_CONTAINERS and containers * _BYTES_PER_CONTAINER > len(body):
        return "consists of brackets, not of what they should hold"
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StrictJsonError("an object has the same key twice")
    return found


def _constant(name: str) -> Any:
    raise StrictJsonError(f"{name} is not a JSON number")


def _integer(text: str) -> int | Decimal:
    if len(text) > _MAX_NUMBER_TEXT:
        raise StrictJsonError("a number has too many digits")
    return int(text) if len(text) <= _MAX_INTEGER_DIGITS else Decimal(text)


def _fraction(text: str) -> Decimal:
    if len(text) > _MAX_NUMBER_TEXT:
        raise StrictJsonError("a number has too many digits")
    try:
        return Decimal(text)
    except ArithmeticError:
        raise StrictJsonError("a number's exponent is out of range") from None


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_constant=_constant,
    parse_int=_integer,
    parse_float=_fraction,
    strict=True,
)


def _walk(document: Any, max_depth: int) -> None:
    level: list[Any] = [document]
    depth = 0
    while level:
        below: list[Any] = []
        is_nested = False
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                for key in value:
                    _check_text(key)
                below.extend(value.values())
                is_nested = True
            elif isinstance(value, list):
                below.extend(value)
                is_nested = True
        if is_nested and (depth := depth + 1) > max_depth:
            raise StrictJsonError(f"nested deeper than {max_depth} levels")
        level = below


def _check_text(text: str) -> None:
    if text.isascii():
        if "\x00" in text:
            raise StrictJsonError("a string holds NUL")
        return
    if "\x00" in text:
        raise StrictJsonError("a string holds NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise StrictJsonError("a string holds a lone surrogate") from None
