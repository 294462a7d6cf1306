"""Reads of an export: its part of the chain, and its rows as the server's own CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.db import connection

from enforcement.exports.columns import SOURCES
from enforcement.exports.domain import Scope, Segment
from enforcement.exports.schema import function_of
from enforcement.ledger.domain import GENESIS_HASH, Head
from valdrix.kernel.db import copy_within, transaction_required

_SEGMENT: Final = """
WITH entry AS NOT MATERIALIZED (
    SELECT * FROM enforcement_ledger_entry WHERE tenant_id = %(tenant)s
), head AS (
    SELECT sequence, entry_hash FROM enforcement_ledger_head WHERE tenant_id = %(tenant)s
), bounds AS (
    SELECT min(sequence) AS first, max(sequence) AS last FROM entry
     WHERE at >= %(start)s AND at < %(end)s
), left_out AS (
    SELECT e.sequence FROM entry e, bounds b
     WHERE e.sequence BETWEEN b.first AND b.last AND %(limit)s::bigint IS NOT NULL
       AND e.event = 'decision_made' AND e.at >= %(start)s AND e.at < %(end)s
     ORDER BY e.sequence OFFSET coalesce(%(limit)s::bigint, 0) LIMIT 1
), places AS (
    SELECT coalesce((SELECT first FROM bounds), (SELECT sequence FROM head) + 1, 1) - 1 AS after,
           coalesce((SELECT sequence FROM left_out) - 1, (SELECT last FROM bounds),
                    (SELECT sequence FROM head), 0) AS last
)
SELECT (SELECT sequence FROM head), (SELECT entry_hash FROM head),
       p.after, (SELECT entry_hash FROM entry WHERE sequence = p.after),
       p.last, l.entry_hash, l.at, EXISTS (SELECT FROM left_out)
  FROM places p LEFT JOIN entry l ON l.sequence = p.last
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
    with connection.cursor() as cursor:
        cursor.execute(_SEGMENT, {**_parameters(scope), "limit": scope.limit})
        position, position_hash, after, after_hash, last, last_hash, last_at, left_out = (
            cursor.fetchone()
        )
    return Segment(
        position=_build_head(position or 0, position_hash),
        after=_build_head(after, after_hash),
        last=_build_head(last, last_hash),
        last_at=last_at or scope.start_at,
        is_truncated=left_out,
    )


def _build_head(sequence: int, entry_hash: bytes | None) -> Head:
    if sequence == 0:
        return Head(0, GENESIS_HASH)
    if entry_hash is None:
        raise LedgerIncomplete(f"the ledger has no entry {sequence}")
    return Head(sequence, bytes(entry_hash))


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


_SMALL: Final = 1_000
"""Up to so many decisions an export's rows are gathered by functions of the database."""


def is_small(scope: Scope) -> bool:
    """Tell whether all of an export's rows can be asked for at once."""
    return scope.limit is not None and scope.limit <= _SMALL


def stream_files(
    names: Sequence[str], scope: Scope, segment: Segment
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield each file's name and rows, the same as :func:`stream_rows`, from one round trip.

    A file's rows have to be read before the next is asked for.
    """
    values = (
        str(scope.tenant_id),
        scope.start_at.isoformat(),
        scope.end_at.isoformat(),
        str(segment.after.sequence),
        str(segment.last.sequence),
    )
    copies = (
        (f"COPY (SELECT * FROM {function_of(name)}(%s, %s, %s, %s, %s)) TO STDOUT CSV", values)
        for name in names
    )
    yield from zip(names, copy_within(*copies), strict=True)


def _parameters(scope: Scope) -> dict[str, Any]:
    return {"tenant": scope.tenant_id, "start": scope.start_at, "end": scope.end_at}
