"""The arithmetic of a limit: tokens taken are counted by twentieths of its window. Pure.

A window of any beginning touches at most 21 twentieths, so what passes is bounded by what those
hold together: no more than the limit in any window, no doubling where one window meets the next.
Under steady load that is the limit in 21 twentieths, 95.2 % of it.

Tokens that were taken in one burst come back in one burst. Who pauses in between may use them so.
Who goes on asking would send the whole limit through within moments, and then nothing, again and
again; so a limit that has refused in half of the last 21 twentieths gives its tokens evenly spaced.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

PARTS: Final = 20
SLOTS: Final = PARTS + 1
PACED_FROM: Final = 10
"""So many of the last parts in which something was refused make a flood."""
CATCH_UP_PARTS: Final = 2
"""How far a paced limit may run ahead of its even spacing, so that unevenness costs no tokens."""
_PARTS_KEPT: Final = (1 << SLOTS) - 1


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` within any ``window_seconds``, for everything of one name."""

    name: str
    amount: int
    window_seconds: float

    @property
    def digest(self) -> bytes:
        """Return 16 bytes that stand for the name and the limit."""
        return _digest(self.name, self.window_seconds)

    @property
    def part_seconds(self) -> float:
        """Return the length of the parts that the window is counted by."""
        return self.window_seconds / PARTS

    @property
    def spacing_seconds(self) -> float:
        """Return the distance between tokens that are given evenly: the limit in 21 parts."""
        return self.part_seconds * SLOTS / self.amount

    def slot_of(self, now: float) -> int:
        """Return the number of the part that a moment falls into."""
        return int(now / self.part_seconds)


@lru_cache(maxsize=4096)
def _digest(name: str, window_seconds: float) -> bytes:
    return hashlib.blake2b(f"{window_seconds}:{name}".encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of asking for one token of each of several limits: all are taken, or none.

    :ivar refused: which limit refused, by its position; None when all allowed.
    :ivar wait_seconds: whole seconds until another try may pass; at least 1 when refused.
    :ivar used: what each limit's window holds now; empty where it was not looked at.
    :ivar certain_seconds: how long a refusal stands whatever happens: at most until the next part of
        the window begins.
    """

    refused: int | None
    wait_seconds: int
    used: tuple[int, ...]
    certain_seconds: float = 0.0

    @property
    def is_allowed(self) -> bool:
        """Tell whether tokens were taken."""
        return self.refused is None


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a refusal stands.

    :ivar seconds: until another try may pass.
    :ivar certain_seconds: for which it stands whatever happens.
    """

    seconds: float
    certain_seconds: float

    @property
    def whole_seconds(self) -> int:
        """Return the seconds to be told to whoever was refused."""
        return max(1, math.ceil(self.seconds))


@dataclass(slots=True)
class Bucket:
    """What was taken of one limit, and refused.

    :ivar newest: the part that was last looked at.
    :ivar counts: what was taken in each part, at the part's number modulo ``SLOTS``.
    :ivar refusing: a bit for each part in which something was refused, the newest one lowest.
    :ivar next_at: when the next token is due, where they are given evenly.
    """

    newest: int
    counts: list[int] = field(default_factory=lambda: [0] * SLOTS)
    refusing: int = 0
    next_at: float = 0.0

    @property
    def used(self) -> int:
        """Return what was taken within the window."""
        return sum(self.counts)

    @property
    def is_paced(self) -> bool:
        """Tell whether tokens are given evenly spaced now."""
        return self.refusing.bit_count() >= PACED_FROM

    def move_to(self, slot: int) -> None:
        """Forget what lies a window or more before a part."""
        passed = slot - self.newest
        if passed < 0:  # A clock that went back began anew.
            self.next_at = 0.0
        if not 0 <= passed < SLOTS:
            self.counts = [0] * SLOTS
            self.refusing = 0
        else:
            for emptied in range(self.newest + 1, slot + 1):
                self.counts[emptied % SLOTS] = 0
            self.refusing = self.refusing << passed & _PARTS_KEPT
        self.newest = slot

    def find_wait(self, limit: Limit, now: float) -> Wait | None:
        """Return how long to wait for a token, or None when one can be taken now."""
        part_ends = (self.newest + 1) * limit.part_seconds - now
        if self.used >= limit.amount:
            return Wait(self._oldest_returns_at(limit) - now, part_ends)
        if self.is_paced:
            early = self.next_at - CATCH_UP_PARTS * limit.part_seconds - now
            if early > 0:
                return Wait(early, min(early, part_ends))
        return None

    def take(self, limit: Limit, now: float) -> None:
        """Take a token."""
        self.counts[self.newest % SLOTS] += 1
        if self.is_paced:
            self.next_at = max(self.next_at, now) + limit.spacing_seconds

    def note_refusal(self) -> None:
        """Note that something was refused in this part."""
        self.refusing |= 1

    def _oldest_returns_at(self, limit: Limit) -> float:
        for slot in range(self.newest - PARTS, self.newest):
            if self.counts[slot % SLOTS]:
                return (slot + SLOTS) * limit.part_seconds
        return (self.newest + SLOTS) * limit.part_seconds
