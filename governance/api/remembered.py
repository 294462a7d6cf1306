"""Authentications that this process made a short while ago.

They stand for the database only while it is down: with it up every request is checked, so that a
revoked key is refused at once (SPEC 3.7). They also say whose limits a request counts against
before it is checked, so that a flood is refused without asking the database, and for whom a gate
may be prepared while the database is still to confirm it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from governance.identity.domain import Principal

KEPT_SECONDS: Final = 60.0
JUDGED_WITHIN_SECONDS: Final = 1.5
"""A database that has not said by then whose credential it is counts as down."""
_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a credential spoke for.

    :ivar told: what the database said of a key, as a later request can have it confirmed.
    :ivar asked_at: when it was asked in full, which notes the key's use too.
    :ivar confirmed_at: when it confirmed that for the last time.
    """

    principal: Principal
    told: str | None
    asked_at: float
    confirmed_at: float


class RememberedPrincipals:
    """A bounded memory by the key's digest; an entry is good for at most 60 seconds."""

    def __init__(self, *, size: int = _SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Known] = OrderedDict()

    def keep(self, digest: bytes, principal: Principal, *, told: str | None = None) -> None:
        """Remember whom a key spoke for just now."""
        now = time.monotonic()
        with self._lock:
            self._kept[digest] = Known(principal, told, now, now)
            self._kept.move_to_end(digest)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def renew(self, digest: bytes, told: str) -> None:
        """Note that the database said again just now what it was remembered to have said."""
        with self._lock:
            known = self._kept.get(digest)
            if known is not None and known.told == told:
                self._kept[digest] = replace(known, confirmed_at=time.monotonic())
                self._kept.move_to_end(digest)

    def find(self, digest: bytes) -> Principal | None:
        """Return whom a key spoke for within the last minute, or None."""
        known = self._find(digest)
        if known is None or time.monotonic() - known.confirmed_at > KEPT_SECONDS:
            return None
        return known.principal

    def find_told(self, digest: bytes) -> Known | None:
        """Return what the database said of a key that it was asked in full within the last minute.

        A key that is used gets there once a minute at least, so that its use is noted.
        """
        known = self._find(digest)
        if known is None or known.told is None:
            return None
        return None if time.monotonic() - known.asked_at >= KEPT_SECONDS else known

    def forget(self, digest: bytes) -> None:
        """Forget a key that the database no longer knows."""
        with self._lock:
            self._kept.pop(digest, None)

    def refute(self, digest: bytes, told: str) -> None:
        """Forget what the database said of a key, unless it said something else meanwhile."""
        with self._lock:
            known = self._kept.get(digest)
            if known is not None and known.told == told:
                del self._kept[digest]

    def _find(self, digest: bytes) -> Known | None:
        with self._lock:
            return self._kept.get(digest)


remembered: Final = RememberedPrincipals()
