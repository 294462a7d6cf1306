"""The board: several readings within one bound, whatever the store does."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from django.conf import settings

from telemetry.readings.domain import Reading, Window, unavailable
from telemetry.readings.queries import READINGS
from telemetry.store.connection import (
    NOT_CONFIGURED,
    TIMEOUT,
    Connection,
    StoreLimits,
    open_store,
    reason_of,
)

log = logging.getLogger("valdrix.telemetry")

BUSY: Final = "busy"
_MOST_AT_ONCE: Final = 4
_Read = Callable[[str, Connection], Reading]
_slots: Final = threading.BoundedSemaphore(_MOST_AT_ONCE)


def read_board(
    tenant_id: uuid.UUID, window: Window, *, names: Sequence[str] = tuple(READINGS)
) -> dict[str, Reading]:
    """Return readings by name, each with data or with the reason why it has none.

    They run one after the other in a thread that is left behind when its time is over: one
    statement can be stopped by the server, a silent connection by nobody.
    """
    limit_ms = settings.TELEMETRY_READ_TIMEOUT_MS
    if settings.TELEMETRY_STORE is None:
        return {name: unavailable(NOT_CONFIGURED) for name in names}
    if not _slots.acquire(blocking=False):
        return {name: unavailable(BUSY) for name in names}
    found: dict[str, Reading] = {}
    limits = StoreLimits(statement_timeout_ms=limit_ms, lock_timeout_ms=200, is_read_only=True)

    def read(name: str, store: Connection) -> Reading:
        return READINGS[name](store, tenant_id, window)

    def work() -> None:
        try:
            _read_each(limits, names, found, read)
        finally:
            _slots.release()

    thread = threading.Thread(target=work, name="telemetry-reading", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        _slots.release()
        return {name: unavailable(BUSY) for name in names}
    # As long as one reading may take, and a little for connecting.
    thread.join(limit_ms / 1000 + 0.5)
    return {name: found.get(name) or unavailable(TIMEOUT) for name in names}


def _read_each(
    limits: StoreLimits, names: Sequence[str], found: dict[str, Reading], read: _Read
) -> None:
    """Fill in reading after reading, so that one that comes too late leaves the others."""
    try:
        store = open_store(limits)
    except Exception as error:  # noqa: BLE001 - whatever the store does is an answer
        reason = _explain(error)
        found.update((name, unavailable(reason)) for name in names)
        return
    with store:
        for name in names:
            try:
                found[name] = read(name, store)
            except Exception as error:  # noqa: BLE001 - the same
                found[name] = unavailable(_explain(error))


def _explain(error: Exception) -> str:
    reason = reason_of(error)
    log.warning("a telemetry reading is not available: %s (%s)", reason, type(error).__name__)
    return reason
