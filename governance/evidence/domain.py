"""Examining a document: every problem with its JSON pointer, none of them the last one found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

CLOCK_LEEWAY: Final = timedelta(minutes=5)
"""How far ahead of the verifier's clock a capture's clock may be."""

MOST_PROBLEMS: Final = 1000
"""What is said of one document: who wrote more that is wrong did not mean it as evidence."""
_BEYOND: Final = 10**15
_MOST_DECIMALS: Final = 20
"""Figures beyond these are nobody's, and arithmetic on them would not end or not be exact."""
_PLACEHOLDERS: Final = (
    "example.com", ".example", "tbd", "todo", "placeholder", "replace_me", "yyyy",
)  # fmt: skip
_PLACEHOLDER: Final = re.compile(
    r"(?<![a-z0-9])(?:" + "|".join(map(re.escape, _PLACEHOLDERS)) + r")(?![a-z0-9])"
)


_MAY_HOLD_TEXT: Final = (dict, list, str)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a piece of evidence.

    :ivar pointer: where, as a JSON pointer (RFC 6901); empty for the whole document.
    :ivar code: stable, for programs.
    """

    pointer: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.message} [{self.code}]"


@dataclass(slots=True)
class Examination:
    """A document that is being examined, and what was found.

    Each reading function returns None for what is missing or of another type, having noted it,
    so that one problem hides no other.
    """

    document: Any
    problems: list[Problem] = field(default_factory=list)
    _found: dict[str, Any] = field(default_factory=dict)
    """What lies at a pointer, of those that others go on from."""

    def refuse(self, pointer: str, code: str, message: str) -> None:
        """Note a problem, and of too many that there are more."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(pointer, code, message))
        elif len(self.problems) == MOST_PROBLEMS:
            self.problems.append(Problem("", "too_many", "more is wrong than is said here"))

    def has(self, pointer: str) -> bool:
        """Tell whether the document has something at a pointer."""
        return self._resolve(pointer) is not _MISSING

    def text(self, pointer: str) -> str | None:
        """Return a text that is not blank."""
        value = self._get(pointer)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self.refuse(pointer, "not_text", "must be a text that is not blank")
            return None
        return value

    def flag(self, pointer: str) -> bool | None:
        """Return a boolean."""
        value = self._get(pointer)
        if value is not None and not isinstance(value, bool):
            self.refuse(pointer, "not_boolean", "must be true or false")
            return None
        return value

    def number(self, pointer: str) -> Decimal | None:
        """Return a number, exactly as it is written."""
        value = self._get(pointer)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.refuse(pointer, "not_number", "must be a number")
            return None
        number = Decimal(value)
        if not self._is_in_range(pointer, number):
            return None
        return number

    def count(self, pointer: str) -> int | None:
        """Return a whole number from 0 upwards."""
        value = self._get(pointer)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(pointer, "not_count", "must be a whole number from 0 upwards")
            return None
        return value if self._is_in_range(pointer, Decimal(value)) else None

    def items(self, pointer: str, *, may_be_empty: bool = False) -> list[Any]:
        """Return a list; an empty one for what is none."""
        value = self._get(pointer)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(pointer, "not_list", "must be a list")
            return []
        if not value and not may_be_empty:
            self.refuse(pointer, "empty", "must not be empty")
        return value

    def texts(self, pointer: str) -> list[str]:
        """Return a list of texts that are not blank, without those that are none."""
        values = self.items(pointer)
        found = [self.text(f"{pointer}/{index}") for index in range(len(values))]
        return [text for text in found if text is not None]

    def moment(self, pointer: str) -> datetime | None:
        """Return a moment with its offset from UTC, as ISO 8601 writes it."""
        text = self.text(pointer)
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.utcoffset() is None:
            self.refuse(pointer, "not_moment", "must be an ISO 8601 moment with an offset")
            return None
        return moment

    def same(self, pointer: str, found: object, expected: object, *, because: str) -> None:
        """Note a value that differs from what it has to be; None was noted already."""
        if found is not None and expected is not None and found != expected:
            self.refuse(pointer, "mismatch", f"is {found}, and {because} {expected}")

    def is_true(self, pointer: str, *, because: str) -> None:
        """Note a boolean that is not true."""
        if self.flag(pointer) is False:
            self.refuse(pointer, "not_true", because)

    def fresh(self, pointer: str, *, now: datetime, at_most: timedelta | None) -> datetime | None:
        """Return a moment that is not ahead of the clock; with a limit, note one that is too old."""
        moment = self.moment(pointer)
        if moment is None:
            return None
        if moment > now + CLOCK_LEEWAY:
            self.refuse(pointer, "from_the_future", "is ahead of the clock")
            return None
        if at_most is not None and now - moment > at_most:
            self.refuse(pointer, "stale", f"is older than {at_most}")
        return moment

    def once(self, pointer: str, values: Iterable[object]) -> None:
        """Note a value that a list has more than once: what is said twice is no second proof."""
        for value, times in Counter(one for one in values if one is not None).items():
            if times > 1:
                self.refuse(pointer, "duplicate", f"has {value} {times} times")

    def unknown_members(self, pointer: str, known: Collection[str]) -> None:
        """Note members of an object that the profile does not have."""
        value = self._resolve(pointer)
        if isinstance(value, dict):
            for name in value:
                if name not in known:
                    self.refuse(f"{pointer}/{_escape(name)}", "unknown_member", "is not known")

    def _is_in_range(self, pointer: str, number: Decimal) -> bool:
        exponent = number.as_tuple().exponent
        if (
            -_BEYOND < number < _BEYOND
            and isinstance(exponent, int)
            and exponent >= -_MOST_DECIMALS
        ):
            return True
        self.refuse(pointer, "out_of_range", "is no figure that was ever measured")
        return False

    def _resolve(self, pointer: str) -> Any:
        if not pointer:
            return self.document
        parent, _, last = pointer.rpartition("/")
        if parent not in self._found:
            self._found[parent] = self._resolve(parent)
        return _member(self._found[parent], last)

    def _get(self, pointer: str) -> Any:
        value = self._resolve(pointer)
        if value is _MISSING or value is None:
            self.refuse(pointer, "missing", "is missing")
            return None
        return value


def find_placeholders(document: Any, pointer: str = "") -> Iterator[Problem]:
    """Yield the texts that a template has and real evidence never has."""
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, _MAY_HOLD_TEXT):
                yield from find_placeholders(value, f"{pointer}/{_escape(name)}")
    elif isinstance(document, list):
        for index, value in enumerate(document):
            if isinstance(value, _MAY_HOLD_TEXT):
                yield from find_placeholders(value, f"{pointer}/{index}")
    elif isinstance(document, str):
        match = _PLACEHOLDER.search(document.lower())
        if match is not None:
            yield Problem(pointer, "placeholder", f"holds the placeholder {match[0]!r}")


class _Missing:
    """The value of what is not there."""


_MISSING: Final = _Missing()


def _member(value: Any, part: str) -> Any:
    name = part.replace("~1", "/").replace("~0", "~") if "~" in part else part
    if isinstance(value, dict):
        return value.get(name, _MISSING)
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return _MISSING


def _escape(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
