"""CSV as bills come in it: read a line at a time, strictly, in bounded memory. Pure.

UTF-8, with or without a byte order mark (spreadsheets write one), any line ending, quoted cells
that hold line breaks. Columns are found by name, in any order and case.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

from billing.costs.domain import CostFileRefused, CostFileUnreadable, RowFault
from valdrix.kernel.problems import FieldError

_BUFFER_BYTES: Final = 128 * 1024
_LINE_LIMIT: Final = 1024 * 1024
_MOST_COLUMNS: Final = 1000


class Table:
    """The rows of one CSV stream; the first row is read at once.

    :ivar first: the first row's cells: the header, unless the file has none.
    :raises CostFileUnreadable: when the stream is not UTF-8, not CSV, or empty.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        buffered = io.BufferedReader(_Borrowed(stream), _BUFFER_BYTES)
        text = io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")
        self._reader = csv.reader(_lines(text), strict=True)
        _, self.first = next(self._raw(), (0, []))
        if not self.first:
            raise CostFileUnreadable("The file is empty.")
        if len(self.first) > _MOST_COLUMNS:
            raise CostFileUnreadable(f"The file has more than {_MOST_COLUMNS} columns.")

    def rows(self) -> Iterator[tuple[int, list[str] | RowFault]]:
        """Give each further row with the number of its first line; blank ones are left out.

        A row that has not as many cells as the first one is given as its fault.
        """
        width = len(self.first)
        for line, cells in self._raw():
            if len(cells) == width:
                yield line, cells
            else:
                detail = f"has {len(cells)} cells, the header has {width}"
                yield line, RowFault("", detail, code="wrong_number_of_cells")

    def _raw(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            line = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except UnicodeDecodeError:
                raise CostFileUnreadable(f"The file is not UTF-8 after line {line}.") from None
            except csv.Error as error:
                raise CostFileUnreadable(f"The file is not CSV at line {line}: {error}.") from None
            if any(cell.strip() for cell in cells):
                yield line, cells


class _Borrowed(io.RawIOBase):
    """Reads from another's stream and leaves it open."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Give lines of a bounded length: a file without line breaks is not read into memory."""
    while line := text.readline(_LINE_LIMIT):
        if len(line) == _LINE_LIMIT:
            raise csv.Error(f"a line has more than {_LINE_LIMIT} characters")
        yield line


def column_name(cell: str) -> str:
    """Return a header's cell as columns are compared: without blanks around it, in lower case."""
    return cell.strip().casefold()


def find_columns(header: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the places of those named columns that a header has.

    :raises CostFileRefused: when one of them occurs twice.
    """
    folded = [column_name(cell) for cell in header]
    found = {}
    for name in names:
        count = folded.count(name.casefold())
        if count > 1:
            raise CostFileRefused(
                "The header names a column twice.",
                errors=(FieldError(f"/header/{name}", "duplicate_column", "occurs twice"),),
            )
        if count:
            found[name] = folded.index(name.casefold())
    return found


def require_columns(found: dict[str, int], *alternatives: tuple[str, ...]) -> None:
    """Check that a header has at least one column of each group.

    :raises CostFileRefused: with an error for each that is missing.
    """
    missing = [group for group in alternatives if not any(name in found for name in group)]
    if missing:
        names = ", ".join(" or ".join(group) for group in missing)
        raise CostFileRefused(
            f"The file lacks columns: {names}.",
            errors=tuple(
                FieldError(f"/header/{group[0]}", "missing_column", "is required")
                for group in missing
            ),
        )
