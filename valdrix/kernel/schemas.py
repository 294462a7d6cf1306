"""JSON Schemas of what :mod:`valdrix.kernel.fields` and the money parser take. Pure.

They say what a regular expression can say in every dialect. Some refusals are stricter still: a text
may hold no format characters of Unicode either, and a number no more decimals than are kept.
"""

from __future__ import annotations

from typing import Any, Final

from valdrix.kernel.fields import TEXT_LIMIT

PLAIN_PATTERN: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"
"""No control characters."""
_SHOWN: Final = r"[^\u0000-\u001f\u007f-\u00a0\u00ad]"
TEXT_PATTERN: Final = rf"^{_SHOWN}*[^\u0000-\u0020\u007f-\u00a0\u00ad]{_SHOWN}*$"
"""Something that is seen, and nothing that is not."""
_WRITTEN: Final = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u00a0\u00ad]"
PROSE_PATTERN: Final = rf"^{_WRITTEN}*[^\u0000-\u0020\u007f-\u00a0\u00ad]{_WRITTEN}*$"
"""The same with tabs and line breaks."""
_MOST: Final = 10**12


def text_schema(
    max_length: int = TEXT_LIMIT, *, is_optional: bool = False, **more: Any
) -> dict[str, Any]:
    """Return the schema of a text that is not blank.

    :param is_optional: null means the same as leaving it out.
    """
    return {
        "type": ["string", "null"] if is_optional else "string",
        "minLength": 1,
        "maxLength": max_length,
        "pattern": TEXT_PATTERN,
        **more,
    }


def prose_schema(max_length: int = 2000) -> dict[str, Any]:
    """Return the schema of a text that people write to one another."""
    return {"type": "string", "minLength": 1, "maxLength": max_length, "pattern": PROSE_PATTERN}


def amount_schema(*, places: int = 4, is_signed: bool = True, **more: Any) -> dict[str, Any]:
    """Return the schema of an amount: a plain decimal string, or a number."""
    sign = "-?" if is_signed else ""
    decimals = rf"(?:\.[0-9]{{1,{places}}})?"
    most = rf"{_MOST}(?:\.0{{1,{places}}})?"
    return {
        "type": ["string", "number"],
        "pattern": rf"^{sign}(?:(?:0|[1-9][0-9]{{0,11}}){decimals}|{most})$",
        "minimum": -_MOST if is_signed else 0,
        "maximum": _MOST,
        **more,
    }


def closed_object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the JSON Schema of an object with these members and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
