"""One object of a policy document: what was not asked for, or is null, is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any, Final, TypeVar

from valdrix.kernel.fields import Fields
from valdrix.kernel.money import MONTHLY_PLACES

ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_ID: Final = re.compile(ID_PATTERN, re.ASCII)

_T = TypeVar("_T")


class Section(Fields):
    """One object of the document. Null is no way to say nothing: it is an error."""

    def raw(self, name: str, *, required: bool = False) -> Any:
        """Return a member as parsed, or None; null is an error."""
        self._read.add(name)
        if name in self._body and self._body[name] is None:
            self.refuse(name, "must not be null; leave it out", code="invalid_type")
            return None
        return super().raw(name, required=required)

    def refuse_unknown(self) -> None:
        """Record an error for each member that nothing has asked for."""
        for name in self._body:
            if name not in self._read:
                self.refuse(str(name)[:80], "is not a field of a policy", code="unknown_field")

    def has(self, name: str) -> bool:
        """Tell whether the document says anything about a member."""
        return name in self._body

    def section(self, name: str) -> Section:
        """Return a member that is an object; an absent or wrong one reads as empty."""
        value = self.raw(name)
        return Section({} if value is None else value, pointer=f"{self.pointer}/{name}")

    def whole(self, name: str, bounds: tuple[int, int], *, default: int) -> int:
        """Return an integer within bounds, or the default where the document says nothing."""
        value = self.integer(name, minimum=bounds[0], maximum=bounds[1])
        return default if value is None else value

    def absorb(self, inner: Section) -> None:
        """Take over an inner object's errors, unknown members included, once it is read."""
        inner.refuse_unknown()
        self.errors.extend(inner.errors)

    def usd(self, name: str, *, required: bool = False) -> Decimal | None:
        """Return a non-negative monthly amount, which a document writes as a string."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(name, 'must be a decimal string such as "500.00"', code="invalid_type")
        elif value.startswith("-"):
            self.refuse(name, "must not be negative", code="out_of_range")
        else:
            return self.amount(name, places=MONTHLY_PLACES)
        return None

    def strings(
        self,
        name: str,
        *,
        bounds: tuple[int, int],
        choices: Collection[str] = (),
        find_fault: Callable[[str], str | None] = lambda _: None,
    ) -> tuple[str, ...] | None:
        """Return a list of different, non-blank strings in which ``find_fault`` finds none."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            self.refuse(name, "must be a list", code="invalid_type")
            return None
        least, most = bounds
        if not least <= len(value) <= most:
            self.refuse(name, f"must have {least} to {most} entries", code="out_of_range")
            return None
        pointer = f"{self.pointer}/{name}"
        entries = Section({str(index): item for index, item in enumerate(value)}, pointer=pointer)
        found: list[str] = []
        for key in map(str, range(len(value))):
            text = entries.choice(key, choices) if choices else entries.text(key)
            if text is None:
                continue
            fault = "is in the list twice" if text in found else find_fault(text)
            if fault is None:
                found.append(text)
            else:
                entries.refuse(key, fault)
        self.absorb(entries)
        return tuple(found)

    def objects(
        self, name: str, read: Callable[[Section, str], _T | None], *, most: int
    ) -> tuple[_T, ...]:
        """Return a list of objects with different ids, each as ``read`` understands it."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.refuse(name, "must be a list", code="invalid_type")
            return ()
        if len(value) > most:
            self.refuse(name, f"must have at most {most} entries", code="out_of_range")
            return ()
        found: list[_T] = []
        ids: set[str] = set()
        for index, item in enumerate(value):
            entry = Section(item, pointer=f"{self.pointer}/{name}/{index}")
            if not isinstance(item, dict):
                self.absorb(entry)
                continue
            identifier = entry.text("id", required=True, pattern=_ID) or ""
            if identifier in ids:
                entry.refuse("id", "is the id of an earlier entry", code="duplicate")
            if identifier:
                ids.add(identifier)
            made = read(entry, identifier)
            self.absorb(entry)
            if made is not None:
                found.append(made)
        return tuple(found)
