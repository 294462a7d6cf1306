"""Observations, and writers that write them into the test's own database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from telemetry.events.writer import Writer, WriterLimits
from telemetry.store.connection import WRITING, Connection, open_store
from valdrix.kernel.emitter import GATE_DECIDED, Observation
from valdrix.kernel.ids import new_id

QUICK = WriterLimits(flush_seconds=0.01, switch_seconds=0.05)


def build_observation(tenant_id: uuid.UUID, **members: Any) -> Observation:
    """Return an observation of a gate, with members changed."""
    return Observation(
        **{
            "id": new_id(),
            "tenant_id": tenant_id,
            "kind": GATE_DECIDED,
            "at": datetime.now(UTC),
            "outcome": "ALLOW",
            "source": "terraform",
            "environment": "prod",
            "duration_ms": 7,
            "amount_usd": Decimal("1.50"),
            "attributes": {"mode": "hard", "project": "shop"},
            **members,
        }
    )


@contextmanager
def running_writer(
    *, connect: Callable[[], Connection] | None = None, limits: WriterLimits = QUICK
) -> Iterator[Writer]:
    """Give a writer for the time of the block; it is stopped however the block ends."""
    writer = Writer(connect=connect or partial(open_store, WRITING), limits=limits)
    try:
        yield writer
    finally:
        writer.stop()


def stored_events(tenant_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return a tenant's events as telemetry's role reads them, oldest first."""
    store = open_store(WRITING)
    with store, store.transaction():
        store.execute("SELECT set_config('valdrix.tenant', %s, true)", [str(tenant_id)])
        cursor = store.execute("SELECT * FROM telemetry_event ORDER BY at, id")
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
