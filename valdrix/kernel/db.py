"""Transactions: the only place that opens one, and the tenant and time-outs it carries.

``ATOMIC_REQUESTS`` is off: the use case owns its transaction and says which kind it means.
Row-level security reads ``valdrix.tenant``, set for one transaction only, so that a pooled
connection never carries one tenant's name into another's request.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db import transaction as _django

from valdrix.kernel.postgresql.deadline import time_limit

__all__ = [
    "LONG_READ",
    "ORDINARY",
    "NotInTransaction",
    "TimeLimits",
    "drop_lost_connection",
    "is_database_down",
    "platform_transaction",
    "reading",
    "savepoint",
    "snapshot_reading",
    "sqlstate_of",
    "tenant_ids_for_job",
    "time_limit",
    "transaction",
    "transaction_required",
]


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long one transaction may wait for a lock and for a statement, in milliseconds."""

    lock_timeout_ms: int
    statement_timeout_ms: int


ORDINARY: Final = TimeLimits(lock_timeout_ms=2_000, statement_timeout_ms=30_000)
LONG_READ: Final = TimeLimits(lock_timeout_ms=2_000, statement_timeout_ms=0)
"""For exports and verifications, which read for as long as there are rows."""


_IDLE_TIMEOUT_MS: Final = 60_000


class NotInTransaction(RuntimeError):
    """A function that only makes sense inside a transaction was called outside one."""


@contextmanager
def transaction(tenant_id: uuid.UUID, *, limits: TimeLimits = ORDINARY) -> Iterator[None]:
    """Run a block as one durable transaction of one tenant; refuses to be nested.

    :raises RuntimeError: when a transaction is already open on this connection.
    """
    with _django.atomic(durable=True):
        _bind(tenant_id, limits)
        yield


@contextmanager
def reading(tenant_id: uuid.UUID, *, limits: TimeLimits = ORDINARY) -> Iterator[None]:
    """Run a block that only reads one tenant's rows; the database refuses writes in it."""
    with _django.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        _bind(tenant_id, limits)
        yield


@contextmanager
def snapshot_reading(tenant_id: uuid.UUID, *, limits: TimeLimits = LONG_READ) -> Iterator[None]:
    """Run a block whose every statement sees the same committed state of one tenant."""
    with _django.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        _bind(tenant_id, limits)
        yield


@contextmanager
def platform_transaction() -> Iterator[None]:
    """Run a durable transaction over tables that belong to no tenant (people, sessions)."""
    with _django.atomic(durable=True):
        yield


def bind_tenant(tenant_id: uuid.UUID) -> None:
    """Let the open platform transaction go on as one of a tenant's, or of the next tenant's.

    For what belongs to a person and has to be told to each of their tenants.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    _bind(tenant_id, ORDINARY)


@contextmanager
def savepoint() -> Iterator[None]:
    """Run a block that may fail without losing the transaction around it.

    :raises NotInTransaction: when there is no transaction to save a point of.
    """
    transaction_required()
    with _django.atomic():
        yield


def transaction_required() -> None:
    """Check that the caller opened a transaction.

    :raises NotInTransaction: when none is open.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction("call this inside valdrix.kernel.db.transaction()")


def tenant_ids_for_job(job: str) -> list[uuid.UUID]:
    """Return every tenant, for a system job that then works through them one by one.

    :param job: the job's name; the database refuses the list to a session that gives none.
    """
    with _django.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('valdrix.system_job', %s, true)", [job])
        cursor.execute("SELECT tenant_id FROM governance_tenants_for_job()")
        return [row[0] for row in cursor.fetchall()]


def sqlstate_of(error: BaseException) -> str | None:
    """Return PostgreSQL's five-character code behind a Django database error, if it has one."""
    seen: BaseException | None = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if isinstance(state, str):
            return state
        seen = seen.__cause__
    return None


def is_database_down(error: BaseException) -> bool:
    """Tell whether an error means that the database cannot be talked to at all."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    state = sqlstate_of(error)
    if state is None:
        return isinstance(error, OperationalError | InterfaceError)
    return state.startswith("08") or state in {"57P01", "57P02", "57P03", "53300"}


def drop_lost_connection() -> None:
    """Drop this thread's connection where it is lost, so that the next statement opens another.

    Django does this between requests only; a fail-safe answer wants it within one.
    """
    if not connection.in_atomic_block:
        connection.errors_occurred = True
        connection.close_if_unusable_or_obsolete()


def _bind(tenant_id: uuid.UUID, limits: TimeLimits) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('valdrix.tenant', %s, true),"
            " set_config('lock_timeout', %s, true),"
            " set_config('statement_timeout', %s, true),"
            # Locks of a caller that went silent in the middle are not held for longer than that.
            " set_config('idle_in_transaction_session_timeout', %s, true)",
            [
                str(tenant_id),
                str(limits.lock_timeout_ms),
                str(limits.statement_timeout_ms),
                str(limits.statement_timeout_ms or _IDLE_TIMEOUT_MS),
            ],
        )
