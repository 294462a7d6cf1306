"""Who floods comes last: what passes of a flood lets requests that are in progress go first.

A limit keeps a flood's calls away, and lets through what is within it. That is work like any other,
and on a small machine whoever else asks at the moment waits for it. So the request of a caller who was
refused a moment ago begins when nothing else is in progress in any worker of the web server, or after
a short while. One of a process waits so, and no more.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

COMES_LAST: Final = "valdrix.comes_last"
"""Set in a request's environment: its caller was refused a moment ago, and goes on asking."""
MOST_SECONDS: Final = 0.025
"""A gate's time on a busy machine, several times over."""
_LOOKS_EVERY_SECONDS: Final = 0.002
_MOST_COUNTED: Final = 255


class Cells(Protocol):
    """A byte for each worker of the web server: how much it has in progress."""

    def __getitem__(self, place: slice, /) -> bytes | bytearray: ...
    def __setitem__(self, place: int, value: int, /) -> None: ...


class Busy:
    """What is in progress: of this process, and of all that share the cells with it."""

    def __init__(self) -> None:
        self._cells: Cells = bytearray(1)
        self._place = 0
        self._count = 0
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def share(self, cells: Cells, place: int) -> None:
        """Count in a cell of this process, beside those of the others; before the first request."""
        self._cells, self._place = cells, place

    def begin(self) -> None:
        """Count one more."""
        self._add(1)

    def end(self) -> None:
        """Count one less."""
        self._add(-1)

    def wait(self) -> None:
        """Return when nothing is in progress, or after a short while; at once while another one waits.

        Each who waits has a place, and no token of its limit yet: a flood that waits as one would
        have all places.
        """
        if not self._turn.acquire(blocking=False):
            return
        until = time.monotonic() + MOST_SECONDS
        try:
            while any(self._cells[:]) and time.monotonic() < until:
                time.sleep(_LOOKS_EVERY_SECONDS)
        finally:
            self._turn.release()

    def _add(self, number: int) -> None:
        with self._lock:
            self._count += number
            self._cells[self._place] = min(self._count, _MOST_COUNTED)


MACHINE: Final = Busy()
"""What the web server's processes have in progress."""
