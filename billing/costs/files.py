"""Cost files: which reader one needs, and everything that it says, read once."""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final

from billing.costs import focus, plain
from billing.costs.domain import (
    AUTO,
    FOCUS,
    PLAIN,
    Charge,
    CostBatch,
    CostFileRefused,
    ProjectRules,
    RowFault,
    Tally,
)
from billing.costs.tables import Table, find_columns
from valdrix.kernel.problems import FieldError

CSV: Final = "csv"
PARQUET: Final = "parquet"
JSON: Final = "json"

Progress = Callable[[int, int], None]
"""Told from time to time how many of how many bytes have been read."""

_MAGIC: Final = b"PAR1"
_CHUNK_BYTES: Final = 1024 * 1024
_ROWS_A_STEP: Final = 2000


@dataclass(frozen=True, slots=True)
class CostFile:
    """A file of costs, or a request's body.

    :ivar stream: can be sought; read from its beginning, as often as needed.
    :ivar carrier: ``csv``, ``parquet`` or ``json``.
    :ivar file_format: ``focus``, ``plain``, or ``auto`` to tell by the columns.
    """

    stream: IO[bytes]
    carrier: str
    file_format: str = AUTO

    @property
    def size_bytes(self) -> int:
        """The size of the whole file."""
        return self.stream.seek(0, io.SEEK_END)


def find_carrier(stream: IO[bytes]) -> str:
    """Return whether a file is Parquet or, as everything else is taken for, CSV."""
    stream.seek(0)
    return PARQUET if stream.read(len(_MAGIC)) == _MAGIC else CSV


def digest_of(file: CostFile) -> str:
    """Return the SHA-256 of a file's bytes, in hex: what makes it the same file again."""
    digest = hashlib.sha256()
    file.stream.seek(0)
    while chunk := file.stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def read_cost_file(
    file: CostFile, *, rules: ProjectRules, now: datetime, progress: Progress | None = None
) -> CostBatch:
    """Return all that a file says, if every row of it is valid.

    Memory is bounded by the projects and days that the file names, not by its size.

    :param now: decides which days are final.
    :raises CostFileUnreadable: when the file is not what it says it is.
    :raises CostFileRefused: when a column is missing or any row is not valid, with their places.
    """
    file_format = _format_of(file)
    size = file.size_bytes
    file.stream.seek(0)
    tally = Tally()
    for number, (place, item) in enumerate(_read(file, file_format, rules, now)):
        if isinstance(item, RowFault):
            tally.refuse(place, item)
        else:
            tally.add(item)
        if progress is not None and number % _ROWS_A_STEP == 0:
            progress(min(size, file.stream.tell()), size)
    batch = tally.finish(file_format=file_format)
    if progress is not None:
        progress(size, size)
    return batch


def _read(
    file: CostFile, file_format: str, rules: ProjectRules, now: datetime
) -> Iterator[tuple[str, Charge | RowFault]]:
    if file.carrier == JSON:
        return plain.read_document(file.stream, now=now)
    if file_format == PLAIN:
        return plain.read_charges(file.stream, now=now)
    if file.carrier == CSV:
        return focus.read_charges(file.stream, rules=rules, now=now)
    # Arrow is large and few processes ever see a Parquet file.
    reader = importlib.import_module("billing.costs.parquet")
    charges: Iterator[tuple[str, Charge | RowFault]] = reader.read_charges(
        file.stream, rules=rules, now=now
    )
    return charges


def _format_of(file: CostFile) -> str:
    """Return the format that was asked for, or the one that the columns show."""
    only = {JSON: PLAIN, PARQUET: FOCUS}.get(file.carrier)
    if only is not None:
        if file.file_format not in {AUTO, only}:
            raise CostFileRefused(f"A file as {file.carrier} is read as {only}.")
        return only
    if file.file_format != AUTO:
        return file.file_format
    file.stream.seek(0)
    header = Table(file.stream).first
    if focus.AMOUNT in find_columns(header, (focus.AMOUNT,)):
        return FOCUS
    if plain.has_no_header(header) or plain.is_plain_header(header):
        return PLAIN
    raise CostFileRefused(
        f"The file has neither the column {focus.AMOUNT} of FOCUS nor date, project, amount.",
        errors=(FieldError(f"/header/{focus.AMOUNT}", "missing_column", "is required"),),
    )
