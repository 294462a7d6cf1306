"""Authentications that this process made a short while ago.

They stand for the database only while it is down: with it up every request is checked, so that a
revoked key is refused at once (SPEC 3.7). They also say whose limits a request counts against
before it is checked, so that a flood is refused without asking the database.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from governance.identity.domain import Principal

KEPT_SECONDS: Final = 60.0
_SIZE: Final = 4096


class RememberedPrincipals:
    """A bounded memory by the key's digest; an entry is good for at most 60 seconds."""

    def __init__(self, *, size: int = _SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def keep(self, digest: bytes, principal: Principal) -> None:
        """Remember whom a key spoke for just now."""
        with self._lock:
            self._kept[digest] = (time.monotonic(), principal)
            self._kept.move_to_end(digest)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def find(self, digest: bytes) -> Principal | None:
        """Return whom a key spoke for within the last minute, or None."""
        with self._lock:
            found = self._kept.get(digest)
        if found is None or time.monotonic() - found[0] > KEPT_SECONDS:
            return None
        return found[1]

    def forget(self, digest: bytes) -> None:
        """Forget a key that the database no longer knows."""
        with self._lock:
            self._kept.pop(digest, None)


remembered: Final = RememberedPrincipals()
