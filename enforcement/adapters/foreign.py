"""Reads documents that other tools write: unknown members are welcome, wrong types are not.

Such a document grows with its tool's versions, so nothing is refused for being new; what is read
must have the type that its source documents, and every fault is named by its JSON pointer.
"""

from __future__ import annotations

from typing import Any, Final

from valdrix.kernel.problems import FieldError, InvalidRequest

MAX_OBJECTS: Final = 250_000
MAX_ERRORS: Final = 20
"""A document with more faults than this is refused at once: the answer stays small."""


class ForeignReader:
    """Gathers the faults of one document; reading goes on until there are too many.

    Every reading method returns ``None`` where the member is absent, null or wrong.

    :param refusal: the exception that :meth:`finish` raises.
    :param detail: its sentence for people.
    """

    def __init__(self, *, refusal: type[InvalidRequest], detail: str) -> None:
        self.errors: list[FieldError] = []
        self._refusal = refusal
        self._detail = detail

    def refuse(self, pointer: str, detail: str, *, code: str = "invalid_value") -> None:
        """Record one fault, and refuse the document when there are too many of them."""
        self.errors.append(FieldError(pointer=pointer, code=code, detail=detail))
        if len(self.errors) >= MAX_ERRORS:
            self.finish()

    def finish(self) -> None:
        """Refuse the document when anything was wrong with it.

        :raises InvalidRequest: or the subclass that was named, with every fault found.
        """
        if self.errors:
            raise self._refusal(self._detail, errors=tuple(self.errors))

    def as_object(self, value: object, pointer: str) -> dict[str, Any] | None:
        """Return a value that must be an object."""
        if isinstance(value, dict):
            return value
        self.refuse(pointer, "must be an object", code="invalid_type")
        return None

    def object(self, parent: dict[str, Any], name: str, pointer: str) -> dict[str, Any] | None:
        """Return an optional member that must be an object."""
        value = parent.get(name)
        return None if value is None else self.as_object(value, f"{pointer}/{name}")

    def objects(
        self, parent: dict[str, Any], name: str, pointer: str
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return the objects of an optional list, each with its pointer."""
        value = parent.get(name)
        if value is None:
            return []
        here = f"{pointer}/{name}"
        if not isinstance(value, list):
            self.refuse(here, "must be a list", code="invalid_type")
            return []
        if len(value) > MAX_OBJECTS:
            self.refuse(here, f"must hold at most {MAX_OBJECTS} objects", code="too_long")
            return []
        found = []
        for index, item in enumerate(value):
            place = f"{here}/{index}"
            if self.as_object(item, place) is not None:
                found.append((place, item))
        return found

    def text(
        self, parent: dict[str, Any], name: str, pointer: str, *, required: bool = False
    ) -> str | None:
        """Return a member that must be a string, not empty when it is required."""
        value = parent.get(name)
        if value is None:
            if required:
                self.refuse(f"{pointer}/{name}", "is required", code="required")
        elif not isinstance(value, str):
            self.refuse(f"{pointer}/{name}", "must be a string", code="invalid_type")
        elif required and not value:
            self.refuse(f"{pointer}/{name}", "must not be empty")
        else:
            return value
        return None

    def flag(self, parent: dict[str, Any], name: str, pointer: str) -> bool | None:
        """Return an optional member that must be true or false."""
        value = parent.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(f"{pointer}/{name}", "must be true or false", code="invalid_type")
        return None

    def count(self, parent: dict[str, Any], name: str, pointer: str) -> int:
        """Return an optional member that counts something, 0 where it is absent."""
        value = parent.get(name)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(f"{pointer}/{name}", "must be a whole number from 0 up")
            return 0
        return value
