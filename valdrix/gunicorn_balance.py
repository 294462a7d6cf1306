"""Which web process takes the next connection: the one that has fewest.

The system wakes all that wait for a connection, and whoever is quickest takes it: of thirty-two one process
had thirty, and of ten sometimes all. The others then have nothing to do, and their cores neither.
"""

from __future__ import annotations

import mmap
from typing import Final

YIELD_SECONDS: Final = 0.005
"""So long a connection is left to a process that has fewer; it may be busy, or stuck."""
_PLACES: Final = 256
_MOST_COUNTED: Final = 2**16 - 1
_SHARE_TOO_MANY: Final = 8


class Counts:
    """How many connections each process of a server has, in memory that all of them share."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 2 * _PLACES)).cast("H")

    def put(self, age: int, connections: int) -> None:
        """Say how many the process of this age has."""
        self._cells[age % _PLACES] = min(connections + 1, _MOST_COUNTED)

    def remove(self, age: int) -> None:
        """Say that the process of this age takes none."""
        self._cells[age % _PLACES] = 0

    def is_ahead(self, age: int) -> bool:
        """Tell whether another process has two fewer than the one of this age, or an eighth."""
        every = self._cells.tolist()
        own, every[age % _PLACES] = every[age % _PLACES], 0
        fewest = min(filter(None, every), default=_MOST_COUNTED)
        return bool(own > fewest + 1 + fewest // _SHARE_TOO_MANY)


class Balance:
    """When a process takes a connection, and when it leaves it to one that has fewer.

    :param counts: of all processes of the server.
    :param age: of this process, by which it has its place among them.
    """

    def __init__(self, counts: Counts, age: int) -> None:
        self._counts = counts
        self._age = age
        self._since: float | None = None

    def has(self, connections: int) -> None:
        """Tell the others how many this process has."""
        self._counts.put(self._age, connections)

    def leave(self) -> None:
        """Tell the others that this process takes none any more."""
        self._counts.remove(self._age)

    def may_take(self, now: float) -> bool:
        """Tell whether this process is to take a connection that waits, by the monotonic clock.

        One that was left to the others and is still there after a moment is its own, however much later
        this process looks.
        """
        if not self._counts.is_ahead(self._age):
            self._since = None
            return True
        if self._since is None:
            self._since = now
        return now - self._since >= YIELD_SECONDS

    def has_looked(self) -> None:
        """Leave the next one to the others again: this process has looked for connections."""
        self._since = None

    def seconds_left(self, now: float) -> float:
        """Return for how long one is still left to the others."""
        return 0.0 if self._since is None else max(0.0, self._since + YIELD_SECONDS - now)
