"""Reads of an export: its part of the chain, and its rows as the server's own CSV."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from django.db import connection

from enforcement.exports.columns import SOURCES
from enforcement.exports.domain import Scope, Segment
from enforcement.ledger.domain import GENESIS_HASH, Head
from valdrix.kernel.db import LONG_READ, read_at_once, to_literal
from valdrix.kernel.structs import json_reader

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


_read: Final = json_reader(_Read)
_read_lines: Final = json_reader(list[str])


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
    return _build_segment(scope, _read(answer))


def _build_segment(scope: Scope, read: _Read) -> Segment:
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


def stream_rows(name: str, scope: Scope, segment: Segment) -> Generator[bytes]:
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
"""Up to so many decisions an export's rows are gathered by a function of the database."""
_SMALL_ENTRIES: Final = 20_000
"""Nor more entries of the ledger: they would fill the memory of the server and of the process."""


class _Gathered(msgspec.Struct, array_like=True):
    """What the function gives; a file is null where the versions of its rows were known."""

    segment: _Read
    versions: str
    decisions: msgspec.Raw
    ledger: msgspec.Raw
    approvals: msgspec.Raw
    reservations: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Rows:
    """A small export's part of the chain, and its files' rows.

    :ivar versions: the digests of the versions of entries and decisions, and of all other rows.
    :ivar files: rows by file, as :func:`read_rows` takes them; without those whose versions were
        known.
    """

    segment: Segment
    versions: str
    files: dict[str, msgspec.Raw]


_ROWS: Final = "SELECT enforcement_export_rows(%s, %s, %s, %s, %s, %s)"
_decode: Final = json_reader(_Gathered)


def find_rows(scope: Scope, *, known: str | None) -> Rows | None:
    """Return a small export's rows in one round trip; None of one that is not small.

    :param known: versions of rows that are not wanted again.
    :raises LedgerIncomplete: when the entry before the first one is missing.
    """
    if scope.limit is None or scope.limit > _SMALL:
        return None
    values = (*_texts(scope), str(scope.limit), str(_SMALL_ENTRIES), known)
    answer = read_at_once(scope.tenant_id, _ROWS, *values, limits=LONG_READ)
    if answer is None:
        return None
    read = _decode(answer)
    files = {
        "decisions.csv": read.decisions,
        "approvals.csv": read.approvals,
        "ledger.csv": read.ledger,
        "reservations.csv": read.reservations,
    }
    return Rows(
        _build_segment(scope, read.segment),
        read.versions,
        {name: rows for name, rows in files.items() if bytes(rows) != b"null"},
    )


def read_rows(rows: msgspec.Raw) -> Iterator[bytes]:
    """Return a file's rows, the same as :func:`stream_rows`."""
    return (f"{row}\n".encode() for row in _read_lines(rows))


def _parameters(scope: Scope) -> dict[str, Any]:
    return {"tenant": scope.tenant_id, "start": scope.start_at, "end": scope.end_at}


def _texts(scope: Scope) -> tuple[str, str, str]:
    return str(scope.tenant_id), scope.start_at.isoformat(), scope.end_at.isoformat()
