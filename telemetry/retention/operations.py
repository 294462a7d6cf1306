"""Deleting what is too old. Nothing else is deleted, and nothing waits for this."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import psycopg

from telemetry.store.connection import CLEANING, TIMEOUT, Connection, open_store, reason_of

BATCH: Final = 500
MORE_REMAINS: Final = "more_remains"
_BIND: Final = "SELECT set_config('valdrix.tenant', %s, true)"
# MATERIALIZED: a sub-select in its place may be run once a row, and then deletes without a limit.
_DELETE: Final = """
WITH old AS MATERIALIZED (
    SELECT id FROM telemetry_event WHERE tenant_id = %s AND at < %s
     ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED)
DELETE FROM telemetry_event e USING old WHERE e.id = old.id
"""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What one run did.

    :ivar delayed: why it gave way before it was done; None when all that is old is gone.
    """

    deleted: int = 0
    batches: int = 0
    delayed: str | None = None


def delete_old(
    *,
    tenant_ids: Sequence[uuid.UUID],
    before: datetime,
    most_batches: int = 10_000,
    connect: Callable[[], Connection] = lambda: open_store(CLEANING),
) -> Cleaned:
    """Delete tenants' events from before a moment, 500 in a transaction.

    A batch is committed at once: a run that is killed leaves what it had not come to, and the next
    one goes on there. Rows that somebody else holds are left for later, and a lock that is not to
    be had within 0.3 s ends the run.

    :raises psycopg.Error: when the store fails in another way; batches done stay done.
    """
    done = Cleaned()
    with connect() as store:
        for tenant_id in tenant_ids:
            while True:
                if done.batches >= most_batches:
                    return replace(done, delayed=MORE_REMAINS)
                try:
                    count = _delete_batch(store, tenant_id, before)
                except psycopg.Error as error:
                    if reason_of(error) != TIMEOUT:
                        raise
                    return replace(done, delayed=TIMEOUT)
                done = Cleaned(done.deleted + count, done.batches + 1)
                if count < BATCH:
                    break
    return done


def _delete_batch(store: Connection, tenant_id: uuid.UUID, before: datetime) -> int:
    with store.transaction():
        store.execute(_BIND, [str(tenant_id)])
        return store.execute(_DELETE, [tenant_id, before, BATCH]).rowcount
