"""Cardinality: how many different values of a caller's free text are told apart."""

from __future__ import annotations

import uuid
from typing import Final

from telemetry.events.domain import FREE_TEXT, OTHER

MOST_VALUES: Final = 200
MOST_SETS: Final = 500


class Folding:
    """Replaces free text beyond the first 200 values of a tenant's attribute by one word.

    It remembers hashes, for at most 500 attributes of tenants, and then starts anew: what it holds
    stays below ten megabytes, whatever callers invent.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[uuid.UUID, str], set[int]] = {}

    def fold(
        self, tenant_id: uuid.UUID, attributes: dict[str, str | int | None]
    ) -> dict[str, str | int | None]:
        """Return attributes with unbounded values folded."""
        for name in FREE_TEXT:
            value = attributes.get(name)
            if isinstance(value, str) and not self._is_known(tenant_id, name, value):
                attributes[name] = OTHER
        return attributes

    def _is_known(self, tenant_id: uuid.UUID, name: str, value: str) -> bool:
        place = (tenant_id, name)
        known = self._seen.get(place)
        if known is None:
            if len(self._seen) >= MOST_SETS:
                self._seen.clear()
            known = self._seen[place] = set()
        mark = hash(value)
        if mark in known:
            return True
        if len(known) >= MOST_VALUES:
            return False
        known.add(mark)
        return True
