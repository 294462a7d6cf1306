"""The policy that each tenant was last seen with, so that a dead database still yields its mode."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from typing import Final

from governance.policies.governing import GoverningPolicy

_REMEMBERED_TENANTS: Final = 512


class LastKnown:
    """A bounded memory by tenant, the least recent out first. Used by fail-safe outcomes only."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[uuid.UUID, GoverningPolicy] = OrderedDict()

    def keep(self, tenant_id: uuid.UUID, governing: GoverningPolicy) -> None:
        """Remember what governs a tenant."""
        with self._lock:
            self._kept[tenant_id] = governing
            self._kept.move_to_end(tenant_id)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def find(self, tenant_id: uuid.UUID) -> GoverningPolicy | None:
        """Return what governed a tenant when it was last seen by this process."""
        with self._lock:
            return self._kept.get(tenant_id)

    def forget(self, tenant_id: uuid.UUID) -> None:
        """Forget a tenant, as a process that has never seen it."""
        with self._lock:
            self._kept.pop(tenant_id, None)


last_known: Final = LastKnown(size=_REMEMBERED_TENANTS)
