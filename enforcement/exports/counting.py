"""Counting: what a manifest states of a file, from its rows as they pass.

What was counted of a small export is remembered, and used for as long as its rows are the same: the
versions of the rows tell, and they need not be read again. A row that somebody changed, by the rules
or in spite of every guard, has another version.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from enforcement.exports.domain import Counted, Scope, Segment, Tally
from enforcement.exports.queries import Rows, find_rows, read_rows
from enforcement.exports.verifier.layout import COLUMNS, SUMS

CHUNK_BYTES: Final = 1 << 18
_REMEMBERED_SCOPES: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """What was counted of an export's files; one object for as long as no row of them changes."""

    files: dict[str, Counted]


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What was counted of a scope, and what it was counted from.

    :ivar versions: the digests of the versions of the rows.
    :ivar rows: the digest of each file's rows.
    """

    versions: str
    rows: dict[str, bytes]
    figures: Figures


class _Memory:
    """What was counted last of each scope; bounded, least recent out first."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[Scope, _Remembered] = OrderedDict()

    def find(self, scope: Scope) -> _Remembered | None:
        with self._lock:
            found = self._kept.get(scope)
            if found is not None:
                self._kept.move_to_end(scope)
            return found

    def keep(self, scope: Scope, remembered: _Remembered) -> None:
        with self._lock:
            self._kept[scope] = remembered
            self._kept.move_to_end(scope)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


_memory: Final = _Memory(size=_REMEMBERED_SCOPES)
_NOTHING: Final = _Remembered("", {}, Figures({}))


def count_small(scope: Scope) -> tuple[Segment, Figures] | None:
    """Return what a small export states, in one round trip; None of one that is not small.

    :raises LedgerIncomplete: when the entry before the first one is missing.
    """
    known = _memory.find(scope) or _NOTHING
    found = find_rows(scope, known=known.versions or None)
    if found is None:
        return None
    if found.versions != known.versions:
        known = _count_anew(found, known)
        _memory.keep(scope, known)
    return found.segment, known.figures


def _count_anew(found: Rows, known: _Remembered) -> _Remembered:
    """Return what is counted of the files that are not what they were."""
    rows = known.rows | {name: sha256(its).digest() for name, its in found.files.items()}
    fresh = {
        name: count(name, read_rows(its))
        for name, its in found.files.items()
        if rows[name] != known.rows.get(name)
    }
    figures = Figures(known.figures.files | fresh) if fresh else known.figures
    return _Remembered(found.versions, rows, figures)


def count(name: str, rows: Iterator[bytes]) -> Counted:
    """Return what is counted of one file."""
    tally = Tally(name)
    for _ in chunks(name, rows, tally):
        pass
    return tally.counted()


def chunks(name: str, rows: Iterator[bytes], tally: Tally) -> Generator[bytes]:
    """Yield a file's bytes in pieces of about ``CHUNK_BYTES``, its header first, and count them."""
    lines = [",".join(COLUMNS[name]).encode() + b"\n"]
    size = len(lines[0])
    for line in _lines(name, rows, tally):
        lines.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield tally.take(b"".join(lines))
            lines.clear()
            size = 0
    yield tally.take(b"".join(lines))


def _lines(name: str, rows: Iterator[bytes], tally: Tally) -> Iterator[bytes]:
    """Yield a file's lines and count them.

    A row's last cell is the hash of the row before and of its own bytes; ledger entries have
    such a hash already.
    """
    is_ledger, has_lineage = name == "ledger.csv", name == "decisions.csv"
    amounts = len(SUMS[name])
    cuts = 2 + amounts + (2 if has_lineage else 1 if is_ledger else 0)
    previous = tally.last_hash
    for row in rows:
        *head, line = row.split(b",", cuts)
        tally.bound += head[0] == b"1"
        tally.count(head[1], head[2 : 2 + amounts])
        if is_ledger:
            tally.close_row(bytes.fromhex(head[-1].decode()))
            yield line
            continue
        if has_lineage:
            tally.policies[head[-2]] += 1
            tally.contexts[head[-1]] += 1
        cells = line[:-1]
        digest = sha256(previous + cells)
        previous = digest.digest()
        tally.close_row(previous)
        yield b"%b,%b\n" % (cells, digest.hexdigest().encode())
