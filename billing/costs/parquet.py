"""Bills in the FOCUS column set as Parquet, a batch of rows at a time.

The only module that imports Arrow, which costs 170 MB on disk and tens of megabytes of memory:
it is loaded by ``billing.costs.files`` when the first Parquet file arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import IO, Any, Final

import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped,unused-ignore]
from pyarrow import parquet as pq  # type: ignore[import-untyped,unused-ignore]

from billing.costs import focus
from billing.costs.domain import (
    UNIT_PLACES,
    Charge,
    CostFileUnreadable,
    ProjectRules,
    RowFault,
)
from billing.costs.tables import find_columns, require_columns

_BATCH_ROWS: Final = 2048
_MOST_GROUP_BYTES: Final = 1024 * 1024 * 1024
_MOST_FOOTER_BYTES: Final = 64 * 1024 * 1024
_LONGEST_CELL_BYTES: Final = 65_536


def read_charges(
    stream: IO[bytes], *, rules: ProjectRules, now: datetime
) -> Iterator[tuple[str, Charge | RowFault]]:
    """Give each row as a charge or as what is wrong with it, and its place, counted from 1.

    :raises CostFileUnreadable: when the stream is not Parquet that can be read.
    :raises CostFileRefused: when a column is missing.
    """
    to_charge = focus.charge_reader(rules=rules, now=now)
    number = 0
    try:
        for values in _rows(stream):
            number += 1
            place = f"rows/{number}"
            try:
                yield place, to_charge(values)
            except RowFault as fault:
                yield place, fault
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise CostFileUnreadable(
            f"The file is not Parquet that can be read, after row {number}: {type(error).__name__}."
        ) from error


def _rows(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    limits = {
        "thrift_string_size_limit": _MOST_FOOTER_BYTES,
        "thrift_container_size_limit": 1_000_000,
    }
    plain = pq.ParquetFile(stream, **limits)
    places = find_columns(plain.schema_arrow.names, focus.COLUMNS)
    require_columns(places, *focus.REQUIRED)
    schema = plain.schema_arrow
    names = {column: schema.names[at] for column, at in places.items()}
    _check_sizes(plain.metadata)
    texts = [name for name in names.values() if _is_text(schema.field(name).type)]
    stream.seek(0)
    # Read as dictionaries, a long text that every row repeats is in memory once.
    file = pq.ParquetFile(stream, read_dictionary=texts, **limits)
    for batch in file.iter_batches(
        batch_size=_BATCH_ROWS, columns=list(names.values()), use_threads=False
    ):
        cells = {column: _cells(batch.column(name)) for column, name in names.items()}
        for at in range(batch.num_rows):
            yield {column: values[at] for column, values in cells.items()}


def _check_sizes(metadata: Any) -> None:
    for group in range(metadata.num_row_groups):
        if metadata.row_group(group).total_byte_size > _MOST_GROUP_BYTES:
            raise CostFileUnreadable(
                f"A row group has more than {_MOST_GROUP_BYTES} bytes; write smaller ones."
            )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _cells(array: Any) -> list[Any]:
    """Return a column's cells as texts, decimals, times and maps."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        longest = pc.max(pc.binary_length(array.dictionary)).as_py()
        if longest is not None and longest > _LONGEST_CELL_BYTES:
            raise CostFileUnreadable(f"A cell has more than {_LONGEST_CELL_BYTES} bytes.")
        values = [_decoded(value) for value in array.dictionary.to_pylist()]
        return [None if at is None else values[at] for at in array.indices.to_pylist()]
    if pa.types.is_timestamp(kind):
        # Days are all that counts of a time: what is finer than a microsecond is cut off.
        zone = "UTC" if kind.tz else None
        return list(array.cast(pa.timestamp("us", tz=zone), safe=False).to_pylist())
    if pa.types.is_floating(kind):
        return [_from_binary(value) for value in array.to_pylist()]
    return list(array.to_pylist())


def _decoded(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def _from_binary(value: Any) -> Decimal | None:
    """Return the shortest decimal that stands for a binary number, to 50 places.

    Providers that export costs as binary numbers mean that decimal.
    """
    if value is None:
        return None
    number = Decimal(repr(value))
    if not number.is_finite() or number.adjusted() >= -UNIT_PLACES:
        return number if not number.is_finite() else _cut(number)
    return Decimal(0)


def _cut(number: Decimal) -> Decimal:
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -UNIT_PLACES:
        return number.quantize(Decimal(1).scaleb(-UNIT_PLACES))
    return number
