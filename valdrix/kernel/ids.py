"""Identifiers: time-ordered UUIDs (RFC 9562, version 7), made at doors only."""

from __future__ import annotations

import os
import threading
import time
import uuid
from functools import lru_cache
from typing import Final

_RANDOM_BITS: Final = 74
_STEP_BITS: Final = 32
_DRAW_BYTES: Final = 10
_DRAWN_AT_ONCE: Final = 64
"""The kernel is asked once for the random parts of so many ids."""


class _Maker:
    """Makes ids that only grow within a process, so that a list by id is a list by age.

    Within one millisecond the random part grows by a random step (RFC 9562, section 6.2,
    method 2); a clock that goes back is waited out by counting on from the last id.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._milliseconds = 0
        self._random = 0
        self._drawn = b""
        self._used = 0

    def next(self) -> uuid.UUID:
        milliseconds = time.time_ns() // 1_000_000
        with self._lock:
            fresh = self._draw()
            if milliseconds > self._milliseconds:
                # The top bit stays free for the steps of this millisecond.
                self._milliseconds, self._random = milliseconds, fresh >> 1
            else:
                self._random += 1 + (fresh & (2**_STEP_BITS - 1))
                if self._random >> _RANDOM_BITS:
                    self._milliseconds, self._random = self._milliseconds + 1, fresh >> 1
            return _assemble(self._milliseconds, self._random)

    def _draw(self) -> int:
        """Return random bits that no other id has."""
        if self._used == len(self._drawn):
            self._drawn, self._used = os.urandom(_DRAW_BYTES * _DRAWN_AT_ONCE), 0
        begins, self._used = self._used, self._used + _DRAW_BYTES
        return int.from_bytes(self._drawn[begins : self._used], "big") >> 6


def _assemble(milliseconds: int, random_bits: int) -> uuid.UUID:
    value = (milliseconds & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= ((random_bits >> 62) & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random_bits & (2**62 - 1)
    return uuid.UUID(int=value)


_maker = _Maker()


def _begin_anew() -> None:
    """Give a forked process a maker of its own: what its parent has drawn is its parent's."""
    global _maker  # noqa: PLW0603 - the one maker of the process
    _maker = _Maker()


os.register_at_fork(after_in_child=_begin_anew)


@lru_cache(maxsize=8192)
def id_of(text: str) -> uuid.UUID:
    """Return the id that a text spells, remembered: for ids that come again and again, as accounts' do.

    :raises ValueError: when the text spells none.
    """
    return uuid.UUID(text)


def new_id() -> uuid.UUID:
    """Return a fresh UUIDv7: 48 bits of Unix milliseconds, then 74 bits that cannot be guessed.

    Time order keeps the indexes of append-only tables dense; nothing reads time from an id.
    """
    return _maker.next()
