"""The lock of a singleton job: held by whoever runs it, wherever that is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connections

from valdrix.kernel.locks import LockClass


@contextmanager
def job_lock(name: str) -> Iterator[bool]:
    """Try to hold a job's lock for the time of the block, and yield whether it is held.

    The lock is one of a transaction on a connection of its own: the job opens transactions of
    its own meanwhile, and a lock of a session would outlive its holder in a connection pool. It
    ends with the connection, so that a runner that dies leaves nothing behind.
    """
    connection = connections.create_connection(DEFAULT_DB_ALIAS)
    try:
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            # The transaction is idle while the job works, and it holds no snapshot.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_number(name)])
            is_held: bool = cursor.fetchone()[0]
        yield is_held
    finally:
        connection.close()


def lock_number(name: str) -> int:
    """Return the 64-bit number of a job's advisory lock."""
    material = bytes([LockClass.JOB]) + name.encode()
    return int.from_bytes(hashlib.sha256(material).digest()[:8], "big", signed=True)
