"""Reads of the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from django.db import connection, models
from django.db.models import QuerySet

from enforcement.ledger.domain import COLUMNS, GENESIS_HASH, ChainedEntry, Head
from enforcement.ledger.models import LedgerEntry, LedgerHead
from valdrix.kernel.db import read_at_once, transaction_required
from valdrix.kernel.rows import remembering

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


Shown: Any = msgspec.defstruct(
    "Shown",
    [
        ("sequence", int),
        *((name, msgspec.Raw, msgspec.Raw(b"null")) for name in COLUMNS),
        ("prev_hash", str, ""),
        ("entry_hash", str, ""),
    ],
    eq=False,
)
"""An entry as it was hashed, and its hashes; the text of its members is carried over unread."""
_SHOWN: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENTRY: Final[Any] = msgspec.json.Decoder(tuple[Shown, str, str])


def read_shown(tenant_id: uuid.UUID, wanted: EntryFilter, *, limit: int) -> list[Any]:
    """Return up to ``limit`` entries in sequence order as they were hashed, read at once.

    What is shown of an entry is taken from the text that the chain proves, not from columns.
    """
    conditions, values = ["tenant_id = %s"], [str(tenant_id)]
    for condition, value in (
        ("decision_id = %s", wanted.decision_id),
        ("project_id = %s", wanted.project_id),
        (f"sequence {'<' if wanted.newest_first else '>'} %s", wanted.after_sequence),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(str(value))
    order = "sequence DESC" if wanted.newest_first else "sequence"
    answer = read_at_once(
        tenant_id,
        "SELECT concat('[', string_agg(concat("  # noqa: S608 - of constants
        "'[', e.canonical, ',\"', encode(e.prev_hash, 'hex'),"
        f" '\",\"', encode(e.entry_hash, 'hex'), '\"]'), ',' ORDER BY e.{order}), ']')"
        " FROM (SELECT sequence, canonical, prev_hash, entry_hash FROM enforcement_ledger_entry"
        f" WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT %s) AS e",
        *values,
        str(limit),
    )
    assert answer is not None
    return [_build_shown(row) for row in _SHOWN.decode(answer)]


@remembering
def _build_shown(row: bytes) -> Any:
    entry, prev_hash, entry_hash = _ENTRY.decode(row)
    entry.prev_hash, entry.entry_hash = prev_hash, entry_hash
    return entry


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
