"""Locks: the one order in which every use case takes them, and the registry of their keys.

Order, everywhere: idempotency key, change key, reservation, accounts by primary key, approval,
token, ledger head. A job or an admin action uses the same order and skips what it does not
need. Only transaction-scoped locks are taken, always under a ``lock_timeout``; after the last
lock come inserts, updates and the commit.
"""

from __future__ import annotations

import enum
import hashlib
import uuid
from collections.abc import Iterable

from django.db import connection

from valdrix.kernel.db import transaction_required


class LockClass(enum.IntEnum):
    """Names of advisory locks. Numbers are permanent: never renumber, never reuse."""

    CHANGE_KEY = 1
    POLICY_PUBLICATION = 2
    JOB = 3


def lock_keys(lock_class: LockClass, tenant_id: uuid.UUID, names: Iterable[str]) -> None:
    """Wait for the named advisory locks of one tenant, in the order of their numbers.

    Names become 64-bit numbers by SHA-256; two names that collide wait for one another and
    nothing else, so a collision costs time and never money.

    :raises django.db.OperationalError: when ``lock_timeout`` runs out (SQLSTATE 55P03).
    """
    transaction_required()
    numbers = lock_numbers(lock_class, tenant_id, names)
    if not numbers:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", [numbers]
        )


def lock_numbers(lock_class: LockClass, tenant_id: uuid.UUID, names: Iterable[str]) -> list[int]:
    """Return the numbers of named locks in the order in which they are taken, each once."""
    return sorted({_number(lock_class, tenant_id, name) for name in names})


def _number(lock_class: LockClass, tenant_id: uuid.UUID, name: str) -> int:
    material = bytes([lock_class]) + tenant_id.bytes + name.encode()
    return int.from_bytes(hashlib.sha256(material).digest()[:8], "big", signed=True)
