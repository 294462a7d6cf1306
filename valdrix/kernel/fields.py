"""Fields: reads one JSON object field by field and collects everything that is wrong with it.

A reader asks for each field it knows; what was never asked for is unknown and refused (SPEC 17).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from valdrix.kernel.canonical import NotCanonicalError, canonical_bytes
from valdrix.kernel.money import AmountError, parse_amount
from valdrix.kernel.problems import FieldError, InvalidRequest, escape_pointer

TEXT_LIMIT: Final = 200
METADATA_LIMIT_BYTES: Final = 16_384

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_SHOWN_UNKNOWN_FIELDS: Final = 20
_MOST_DIGITS: Final = 20


def as_integer(value: Any) -> Any:
    """Return a number without a fraction as the integer that it is; anything else as it came."""
    # The exponent is looked at before any arithmetic: 1e999999 must cost nothing.
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _MOST_DIGITS:
        whole = value.to_integral_value()
        return int(whole) if whole == value else value
    return value


class Fields:
    """Reads the members of one object; errors gather in ``errors`` until :meth:`finish`.

    Every reading method returns ``None`` where the member is absent, null or wrong; wrong ones
    leave a :class:`FieldError` with the member's JSON pointer.
    """

    def __init__(self, body: object, *, pointer: str = "") -> None:
        self.errors: list[FieldError] = []
        self.pointer = pointer
        self._read: set[str] = set()
        self._body: dict[str, Any] = body if isinstance(body, dict) else {}
        if not isinstance(body, dict):
            self.refuse("", "must be an object", code="invalid_type")

    def refuse(self, name: str, detail: str, *, code: str = "invalid_value") -> None:
        """Record that a member is wrong; the empty name means the object itself."""
        pointer = f"{self.pointer}/{escape_pointer(name)}" if name else self.pointer
        self.errors.append(FieldError(pointer=pointer, code=code, detail=detail))

    def raw(self, name: str, *, required: bool = False) -> Any:
        """Return a member as parsed, or None; a required one that is absent is an error."""
        self._read.add(name)
        value = self._body.get(name)
        if value is None and required:
            self.refuse(name, "is required", code="required")
        return value

    def text(
        self,
        name: str,
        *,
        required: bool = False,
        max_length: int = TEXT_LIMIT,
        pattern: re.Pattern[str] | None = None,
    ) -> str | None:
        """Return a non-blank string without control characters, at most ``max_length`` long."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(name, "must be a string", code="invalid_type")
        elif not value.strip():
            self.refuse(name, "must not be blank")
        elif len(value) > max_length:
            self.refuse(name, f"must have at most {max_length} characters", code="too_long")
        elif not value.isprintable():
            self.refuse(name, "must not hold control or other unprintable characters")
        elif pattern is not None and not pattern.fullmatch(value):
            self.refuse(name, f"must match {pattern.pattern}")
        else:
            return value
        return None

    def prose(self, name: str, *, required: bool = False, max_length: int = 2000) -> str | None:
        """Return free text for people: like :meth:`text`, but line breaks are allowed."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(name, "must be a string", code="invalid_type")
        elif not value.strip():
            self.refuse(name, "must not be blank")
        elif len(value) > max_length:
            self.refuse(name, f"must have at most {max_length} characters", code="too_long")
        elif not value.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
            self.refuse(name, "must not hold control or other unprintable characters")
        else:
            return value
        return None

    def amount(self, name: str, *, places: int, required: bool = False) -> Decimal | None:
        """Return an exact amount in US dollars (SPEC 3.2)."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        try:
            return parse_amount(value, places=places)
        except AmountError as error:
            self.refuse(name, str(error), code=error.code)
            return None

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return a JSON boolean; strings such as "true" are refused."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false", code="invalid_type")
            return default
        return value

    def integer(
        self, name: str, *, minimum: int, maximum: int, required: bool = False
    ) -> int | None:
        """Return a JSON integer within bounds; ``2.0`` is one too (JSON Schema, 6.3)."""
        value = as_integer(self.raw(name, required=required))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "must be an integer", code="invalid_type")
        elif not minimum <= value <= maximum:
            self.refuse(name, f"must be between {minimum} and {maximum}", code="out_of_range")
        else:
            return value
        return None

    def choice(self, name: str, choices: Collection[str], *, required: bool = False) -> str | None:
        """Return one of the named strings, compared exactly."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        if not isinstance(value, str) or value not in choices:
            self.refuse(name, "must be one of " + ", ".join(choices), code="invalid_choice")
            return None
        return value

    def identifier(self, name: str, *, required: bool = False) -> uuid.UUID | None:
        """Return a UUID in its 36-character form."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        # uuid.UUID itself also takes braces, underscores, signs, blanks and other scripts' digits.
        if isinstance(value, str) and _UUID.fullmatch(value):
            return uuid.UUID(value)
        self.refuse(name, "must be a UUID")
        return None

    def time(self, name: str, *, required: bool = False) -> datetime | None:
        """Return a moment in UTC from ISO 8601 with an offset, as RFC 3339 has it."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        if isinstance(value, str) and _TIME.fullmatch(value):
            try:
                moment = datetime.fromisoformat(value)
                return moment.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        self.refuse(name, "must be a time such as 2026-01-31T12:00:00Z")
        return None

    def document(
        self, name: str, *, max_bytes: int = METADATA_LIMIT_BYTES, required: bool = False
    ) -> dict[str, Any] | None:
        """Return a JSON object whose canonical form has at most ``max_bytes`` bytes."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(name, "must be an object", code="invalid_type")
            return None
        try:
            size = len(canonical_bytes(value))
        except NotCanonicalError as error:
            self.refuse(name, str(error))
            return None
        if size > max_bytes:
            self.refuse(name, f"must have at most {max_bytes} bytes", code="too_long")
            return None
        return value

    def refuse_unknown(self) -> None:
        """Record an error for each member that nothing has asked for."""
        unknown = [name for name in self._body if name not in self._read]
        for name in unknown[:_SHOWN_UNKNOWN_FIELDS]:
            pointer = f"{self.pointer}/{escape_pointer(name[:80])}"
            self.errors.append(
                FieldError(pointer, "unknown_field", "is not a field of this request")
            )
        if len(unknown) > _SHOWN_UNKNOWN_FIELDS:
            self.refuse("", f"{len(unknown)} unknown fields in all", code="unknown_field")

    def finish(self, detail: str = "The request has invalid fields.") -> None:
        """Refuse the object when anything was wrong with it.

        :raises InvalidRequest: with every error that was found, unknown members included.
        """
        self.refuse_unknown()
        if self.errors:
            raise InvalidRequest(detail, errors=tuple(self.errors))
