"""Reads of the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, models
from django.db.models import QuerySet

from enforcement.ledger.domain import COLUMNS, GENESIS_HASH, ChainedEntry, Head
from enforcement.ledger.models import LedgerEntry, LedgerHead
from valdrix.kernel.db import transaction_required

_SPELLED: Final = {
    models.DateTimeField: "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    models.DecimalField: "{}::text",
    models.UUIDField: "{}::text",
}
_FIELDS: Final = {name: type(LedgerEntry._meta.get_field(name)) for name in COLUMNS}
_STREAM: Final = f"""
SELECT sequence, canonical, prev_hash, entry_hash,
       {", ".join(_SPELLED.get(kind, "{}").format(name) for name, kind in _FIELDS.items())}
  FROM enforcement_ledger_entry WHERE tenant_id = %s ORDER BY sequence
"""  # noqa: S608 - names of columns
_ROWS_AT_ONCE: Final = 2_000


def lock_head() -> Head:
    """Lock the end of the current tenant's chain; the last lock of every use case."""
    transaction_required()
    with connection.cursor() as cursor:
        cursor.execute("SELECT sequence, entry_hash FROM enforcement_lock_ledger_head()")
        sequence, entry_hash = cursor.fetchone()
    return Head(sequence, bytes(entry_hash))


def find_head(tenant_id: uuid.UUID) -> Head | None:
    """Return the end of a tenant's chain without locking it, or None before the first entry."""
    row = LedgerHead.objects.filter(tenant_id=tenant_id).first()
    return None if row is None else Head(row.sequence, bytes(row.entry_hash))


def find_hash(tenant_id: uuid.UUID, sequence: int) -> bytes | None:
    """Return the hash of the entry at a place; zeros before the first, None where there is none."""
    if sequence == 0:
        return GENESIS_HASH
    found = (
        LedgerEntry.objects.filter(tenant_id=tenant_id, sequence=sequence)
        .values_list("entry_hash", flat=True)
        .first()
    )
    return None if found is None else bytes(found)


def stream_entries(tenant_id: uuid.UUID) -> Iterator[tuple[ChainedEntry, tuple[Any, ...]]]:
    """Yield a tenant's entries in order, each with the columns that repeat its members.

    The database spells the columns as the canonical form does, which is much cheaper than to make
    numbers and times of them here and to spell those.
    """
    with connection.chunked_cursor() as cursor:
        cursor.execute(_STREAM, [tenant_id])
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            for sequence, canonical, prev_hash, entry_hash, *columns in rows:
                yield (
                    ChainedEntry(sequence, canonical, bytes(prev_hash), bytes(entry_hash)),
                    tuple(columns),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries a reader asks for.

    :ivar after_sequence: the place after which, in the order asked for, the entries start.
    """

    decision_id: uuid.UUID | None = None
    project_id: str | None = None
    after_sequence: int | None = None
    newest_first: bool = True


def find_entries(tenant_id: uuid.UUID, wanted: EntryFilter, *, limit: int) -> list[LedgerEntry]:
    """Return up to ``limit`` entries in sequence order, newest first unless told otherwise."""
    return list(_find_rows(tenant_id, wanted)[:limit])


def find_chained(tenant_id: uuid.UUID, wanted: EntryFilter, *, limit: int) -> list[ChainedEntry]:
    """Return what :func:`find_entries` does, each entry as it was hashed and no column beside."""
    rows = _find_rows(tenant_id, wanted)
    return [
        ChainedEntry(sequence, canonical, bytes(prev_hash), bytes(entry_hash))
        for sequence, canonical, prev_hash, entry_hash in rows.values_list(
            "sequence", "canonical", "prev_hash", "entry_hash"
        )[:limit]
    ]


def _find_rows(tenant_id: uuid.UUID, wanted: EntryFilter) -> QuerySet[LedgerEntry]:
    rows = LedgerEntry.objects.filter(tenant_id=tenant_id)
    if wanted.decision_id is not None:
        rows = rows.filter(decision_id=wanted.decision_id)
    if wanted.project_id is not None:
        rows = rows.filter(project_id=wanted.project_id)
    if wanted.after_sequence is not None:
        bound = "sequence__lt" if wanted.newest_first else "sequence__gt"
        rows = rows.filter(**{bound: wanted.after_sequence})
    return rows.order_by("-sequence" if wanted.newest_first else "sequence")
