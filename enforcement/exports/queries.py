"""Reads of an export: its part of the chain, and its rows as the server's own CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from django.db import connection

from enforcement.exports.columns import SOURCES
from enforcement.exports.domain import Scope, Segment
from enforcement.ledger.domain import GENESIS_HASH, Head
from enforcement.ledger.queries import find_head
from valdrix.kernel.db import transaction_required

_BOUNDS: Final = """
SELECT min(sequence), max(sequence) FROM enforcement_ledger_entry
 WHERE tenant_id = %(tenant)s AND at >= %(start)s AND at < %(end)s
"""
_FIRST_LEFT_OUT: Final = """
SELECT sequence FROM enforcement_ledger_entry
 WHERE tenant_id = %(tenant)s AND sequence BETWEEN %(first)s AND %(last)s
   AND event = 'decision_made' AND at >= %(start)s AND at < %(end)s
 ORDER BY sequence OFFSET %(limit)s LIMIT 1
"""
_PLACE: Final = """
SELECT entry_hash, at FROM enforcement_ledger_entry WHERE tenant_id = %s AND sequence = %s
"""


class LedgerIncomplete(RuntimeError):
    """The chain lacks an entry that the export would have to hold: verify_ledger says which."""


def find_segment(scope: Scope) -> Segment:
    """Return the part of the chain from a window's first entry to its last.

    Entries between the two belong to it, whatever their time: a chain has no holes.

    :raises NotInTransaction: outside a transaction.
    :raises LedgerIncomplete: when the entry before the first one is missing.
    """
    transaction_required()
    position = find_head(scope.tenant_id) or Head(0, GENESIS_HASH)
    with connection.cursor() as cursor:
        cursor.execute(_BOUNDS, _parameters(scope))
        first, last = cursor.fetchone()
        if first is None:
            first, last = position.sequence + 1, position.sequence
        left_out = None
        if scope.limit is not None:
            cursor.execute(
                _FIRST_LEFT_OUT,
                {**_parameters(scope), "first": first, "last": last, "limit": scope.limit},
            )
            left_out = cursor.fetchone()
    if left_out is not None:
        last = left_out[0] - 1
    after, _ = _find_place(scope, first - 1)
    last_head, last_at = _find_place(scope, last)
    return Segment(
        position=position,
        after=after,
        last=last_head,
        last_at=last_at or scope.start_at,
        is_truncated=left_out is not None,
    )


def _find_place(scope: Scope, sequence: int) -> tuple[Head, datetime | None]:
    if sequence == 0:
        return Head(0, GENESIS_HASH), None
    with connection.cursor() as cursor:
        cursor.execute(_PLACE, [scope.tenant_id, sequence])
        row = cursor.fetchone()
    if row is None:
        raise LedgerIncomplete(f"the ledger has no entry {sequence}")
    return Head(sequence, bytes(row[0])), row[1]


def stream_rows(name: str, scope: Scope, segment: Segment) -> Iterator[bytes]:
    """Yield a file's rows in the ledger's order, each a head and a line of CSV."""
    parameters = {
        **_parameters(scope),
        "after": segment.after.sequence,
        "last": segment.last.sequence,
    }
    statement = f"COPY ({SOURCES[name].select()}) TO STDOUT (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as rows:
        for row in rows:
            yield bytes(row)


def _parameters(scope: Scope) -> dict[str, Any]:
    return {"tenant": scope.tenant_id, "start": scope.start_at, "end": scope.end_at}
