"""Owners: how much of what a process has little of each one holds at the moment."""

from __future__ import annotations

import threading
from collections import Counter


class Owners:
    """How many places each owner has, of which none has more than so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    def take(self, owner: str) -> bool:
        """Count one more of an owner, and tell whether it is not one too many."""
        with self._lock:
            if self._held[owner] >= self._most:
                return False
            self._held[owner] += 1
            return True

    def give_back(self, owner: str) -> None:
        """Count one less of an owner; who has none is forgotten."""
        with self._lock:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
