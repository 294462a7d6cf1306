"""One CSV file, read row by row: counted, hashed, and compared with what the manifest states."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NoReturn

from enforcement.exports.verifier.files import Refused
from enforcement.exports.verifier.layout import COLUMNS, KINDS, MARK_EVERY, SUMS, ZERO_HASH

_LINE_BYTES: Final = 1 << 20
_HASH_CELL: Final = 65
"""A comma and 64 hexadecimal digits."""
_AMOUNTS: Final = {
    name: [COLUMNS[name].index(column) for column in columns] for name, columns in SUMS.items()
}

_KIND_PLACE: Final = {name: COLUMNS[name].index(column) for name, column in KINDS.items()}
_SHADOW_PLACE: Final = COLUMNS["reservations.csv"].index("is_shadow")


@dataclass(slots=True)
class Row:
    """One row: where it stands, its bytes without the line's end, its cells."""

    number: int
    raw: bytes
    cells: list[str]


@dataclass(slots=True)
class Table:
    """One CSV file, read row by row: counted, hashed, and its hashes compared with the marks."""

    name: str
    file: BinaryIO
    left: int
    stated: dict[str, Any] | None
    sha256: Any = field(default_factory=hashlib.sha256)
    rows: int = 0
    size: int = 0
    last_hash: bytes = ZERO_HASH
    groups: dict[str, list[int]] = field(default_factory=dict)
    head: Row | None = None

    def refuse(self, reason: str, row: Row | None = None) -> NoReturn:
        """Refuse a row, or the file at the place that was reached."""
        raise Refused(self.name, self.rows + 2 if row is None else row.number, reason)

    def read_line(self) -> bytes:
        """Return the next record with its line's end, or nothing at the end of the file."""
        record = b""
        while True:
            line = self.file.readline(min(self.left, _LINE_BYTES))
            self.left -= len(line)
            record += line
            if len(record) >= _LINE_BYTES:
                self.refuse("the row is longer than any that is written")
            if not line or not record.count(b'"') % 2:
                break
        self.sha256.update(record)
        self.size += len(record)
        return record

    def read_header(self) -> None:
        """Check that the columns are those that are written."""
        header = self.read_line()
        if header.rstrip(b"\r\n") != ",".join(COLUMNS[self.name]).encode():
            raise Refused(self.name, 1, "the columns are not those of an export")
        if header[-2:-1] == b"\r":
            raise Refused(self.name, 1, "the line ends with CR LF: the file was saved again")

    def advance(self) -> Row | None:
        """Return the row that is next, and read the one after it when that row is taken."""
        if self.head is None:
            self.head = self._read()
        return self.head

    def take_chained(self, row: Row) -> None:
        """Take a row whose last cell is the hash of the row before and of its other bytes."""
        cells = row.raw[:-_HASH_CELL]
        digest = hashlib.sha256(self.last_hash + cells)
        if row.raw[len(cells) :] != b"," + digest.hexdigest().encode():
            self.refuse("row_sha256 is not the hash of the row before and of this row", row)
        self.take(row, digest.digest())
        amounts = [row.cells[place] for place in _AMOUNTS[self.name]]
        self.count(self._kind(row), amounts)

    def _kind(self, row: Row) -> str:
        kind = row.cells[_KIND_PLACE[self.name]]
        if self.name == "reservations.csv" and row.cells[_SHADOW_PLACE] == "true":
            return f"shadow {kind}"
        return kind

    def take(self, row: Row, row_hash: bytes) -> None:
        """Count a row that holds and compare its hash with the manifest's mark, if it has one."""
        self.rows += 1
        self.last_hash = row_hash
        self.head = None
        if self.stated is not None and self.rows % MARK_EVERY == 0:
            marks, place = self.stated["marks"], self.rows // MARK_EVERY - 1
            if place >= len(marks) or marks[place] != row_hash.hex():
                self.refuse(
                    f"the manifest has another hash here: one of the {MARK_EVERY} rows up to this"
                    " was changed, and those after it hashed again",
                    row,
                )

    def _read(self) -> Row | None:
        raw = self.read_line()
        if not raw:
            return None
        if not raw.endswith(b"\n"):
            self.refuse("the row is cut off")
        if raw.endswith(b"\r\n"):
            self.refuse("the line ends with CR LF: the file was saved again")
        raw = raw[:-1]
        try:
            cells = next(csv.reader((raw.decode(),), strict=True))
        except (csv.Error, UnicodeDecodeError, StopIteration) as error:
            self.refuse(f"the row is no CSV: {str(error) or 'it is empty'}")
        if len(cells) != len(COLUMNS[self.name]):
            self.refuse(f"the row has {len(cells)} cells, not {len(COLUMNS[self.name])}")
        return Row(self.rows + 2, raw, cells)

    def count(self, kind: str, amounts: list[str]) -> None:
        """Count a row of a kind and add up its amounts, in 1/10,000 dollars."""
        found = self.groups.get(kind)
        if found is None:
            found = self.groups[kind] = [0] * (len(amounts) + 1)
        found[0] += 1
        for place, amount in enumerate(amounts, 1):
            if amount:
                found[place] += self.units(amount)

    def units(self, amount: str) -> int:
        """Return an amount with four decimals in 1/10,000 dollars."""
        try:
            if amount[-5] == ".":
                return int(amount.replace(".", ""))
        except (ValueError, IndexError):
            pass
        raise Refused(self.name, self.rows + 1, f"{amount[:40]!r} is no amount")

    def figures(self) -> dict[str, Any]:
        """Return rows and sums of each kind."""
        return {
            kind: {
                "rows": rows,
                **{name: _units(one) for name, one in zip(SUMS[self.name], sums, strict=True)},
            }
            for kind, (rows, *sums) in sorted(self.groups.items())
        }

    def finish(self) -> None:
        """Compare the whole file with what the manifest states of it."""
        assert self.stated is not None
        if self.rows < self.stated["rows"]:
            self.refuse(f"the row is missing: the manifest counts {self.stated['rows']} rows")
        found = {
            "rows": self.rows,
            "last_row_sha256": self.last_hash.hex(),
            "bytes": self.size,
            "sha256": self.sha256.hexdigest(),
        }
        for name, value in found.items():
            if name == "last_row_sha256" and self.stated[name] != value:
                reason = "one of the last rows was changed, and those after it hashed again"
                raise Refused(self.name, self.rows + 1, reason)
            if self.stated[name] != value:
                reason = f"{name} is {value}, and {self.stated[name]} in the manifest"
                raise Refused(self.name, self.rows + 1, reason)


def _units(units: int) -> str:
    whole, part = divmod(abs(units), 10_000)
    return f"{'-' if units < 0 else ''}{whole}.{part:04d}"


def plain(cell: str) -> str:
    """Return what a cell says, without the apostrophe that keeps it from being a formula."""
    return cell[1:] if cell[:1] == "'" else cell
