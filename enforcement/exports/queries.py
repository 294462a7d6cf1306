"""Reads of an export: its part of the chain, and its rows as the server's own CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from django.db import connection

from enforcement.exports.columns import SOURCES
from enforcement.exports.domain import Scope, Segment
from enforcement.exports.schema import function_of
from enforcement.ledger.domain import GENESIS_HASH, Head
from valdrix.kernel.db import copy_within, to_literal

_SEGMENT: Final = "SELECT enforcement_export_segment(%s, %s, %s, %s)"


class _Read(msgspec.Struct, array_like=True):
    """What the function gives: hashes in hex; of the head, the place before, and the last entry."""

    position: int | None
    position_hash: str | None
    after: int
    after_hash: str | None
    last: int
    last_hash: str | None
    last_at: datetime | None
    is_truncated: bool


class LedgerIncomplete(RuntimeError):
    """The chain lacks an entry that the export would have to hold: verify_ledger says which."""


def segment_query(scope: Scope) -> tuple[str, tuple[str | None, ...]]:
    """Return the statement that finds an export's part of the chain, and its values."""
    return _SEGMENT, (*_texts(scope), to_literal(scope.limit))


def read_segment(scope: Scope, answer: bytes | None) -> Segment:
    """Return the part of the chain from a window's first entry to its last.

    Entries between the two belong to it, whatever their time: a chain has no holes.

    :param answer: what :func:`segment_query` gave.
    :raises LedgerIncomplete: when the entry before the first one is missing.
    """
    assert answer is not None
    read = msgspec.json.decode(answer, type=_Read)
    return Segment(
        position=_build_head(read.position or 0, read.position_hash),
        after=_build_head(read.after, read.after_hash),
        last=_build_head(read.last, read.last_hash),
        last_at=read.last_at or scope.start_at,
        is_truncated=read.is_truncated,
    )


def _build_head(sequence: int, entry_hash: str | None) -> Head:
    if sequence == 0:
        return Head(0, GENESIS_HASH)
    if entry_hash is None:
        raise LedgerIncomplete(f"the ledger has no entry {sequence}")
    return Head(sequence, bytes.fromhex(entry_hash))


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
    values = (*_texts(scope), str(segment.after.sequence), str(segment.last.sequence))
    copies = (
        (f"COPY (SELECT * FROM {function_of(name)}(%s, %s, %s, %s, %s)) TO STDOUT CSV", values)
        for name in names
    )
    yield from zip(names, copy_within(*copies), strict=True)


def _parameters(scope: Scope) -> dict[str, Any]:
    return {"tenant": scope.tenant_id, "start": scope.start_at, "end": scope.end_at}


def _texts(scope: Scope) -> tuple[str, str, str]:
    return str(scope.tenant_id), scope.start_at.isoformat(), scope.end_at.isoformat()
