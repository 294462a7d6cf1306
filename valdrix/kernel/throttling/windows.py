"""The arithmetic of a limit: tokens taken are counted by twentieths of its window. Pure.

A window of any beginning touches at most 21 twentieths, so what passes is bounded by what those
hold together: no more than the limit in any window, no doubling where one window meets the next.
Under steady load that is the limit in 21 twentieths, 95.2 % of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Final

PARTS: Final = 20
SLOTS: Final = PARTS + 1


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` within any ``window_seconds``, for everything of one name."""

    name: str
    amount: int
    window_seconds: float

    @property
    def digest(self) -> bytes:
        """Return 16 bytes that stand for the name and the limit."""
        text = f"{self.window_seconds}:{self.name}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    @property
    def part_seconds(self) -> float:
        """Return the length of the parts that the window is counted by."""
        return self.window_seconds / PARTS

    def slot_of(self, now: float) -> int:
        """Return the number of the part that a moment falls into."""
        return int(now / self.part_seconds)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of asking for one token of each of several limits: all are taken, or none.

    :ivar refused: which limit refused, by its position; None when all allowed.
    :ivar wait_seconds: whole seconds until another try may pass; at least 1 when refused.
    :ivar used: what each limit's window holds now; empty where it was not looked at.
    :ivar certain_seconds: how long a refusal stands whatever happens: no token comes back before the
        next part of the window begins.
    """

    refused: int | None
    wait_seconds: int
    used: tuple[int, ...]
    certain_seconds: float = 0.0

    @property
    def is_allowed(self) -> bool:
        """Tell whether tokens were taken."""
        return self.refused is None


def forget_past(counts: MutableSequence[int], *, newest: int, slot: int) -> None:
    """Empty the places of parts that lie between the newest one counted and this one.

    :param counts: what was taken in each part, at the part's number modulo ``SLOTS``.
    """
    if slot - newest >= SLOTS or slot < newest:  # A clock that went back began anew.
        for place in range(SLOTS):
            counts[place] = 0
        return
    for passed in range(newest + 1, slot + 1):
        counts[passed % SLOTS] = 0


def wait_seconds(counts: MutableSequence[int], limit: Limit, *, slot: int, now: float) -> int:
    """Return the whole seconds until the oldest taken token is back."""
    for age in range(PARTS, -1, -1):
        if counts[(slot - age) % SLOTS]:
            back = (slot - age + SLOTS) * limit.part_seconds
            return max(1, math.ceil(back - now))
    return 1
