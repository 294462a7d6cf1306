"""Bills as Parquet: every type that exports have for a column, and files that are none."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from billing.costs.domain import FOCUS, CostFileRefused, CostFileUnreadable
from billing.costs.files import PARQUET, find_carrier
from tests.unit.billing.costs.samples import FOCUS_ROW, read, units_of


def parquet_of(columns: dict[str, Any], **options: Any) -> bytes:
    """Return a file with these columns, the usual ones where none is given."""
    count = len(next(iter(columns.values())))
    table = pa.table({name: pa.array([text] * count) for name, text in FOCUS_ROW.items()} | columns)
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("costs", "total"),
    [
        (pa.array(["0.1", "1E-05"]), "0.10001"),
        (pa.array([0.1, 1e-05]), "0.10001"),
        (pa.array([0.1, 0.2]), "0.3"),
        (pa.array([Decimal("0.1000000000"), Decimal("0.0000000001")]), "0.1000000001"),
        (pa.array([1, 2]), "3"),
        (pa.array([5e-324, 1.5]), "1.5"),
        (pa.array(["0.1", "0.2"]).dictionary_encode(), "0.3"),
    ],
)
def test_costs_are_read_exactly_from_any_type(costs: Any, total: str) -> None:
    batch = read(parquet_of({"BilledCost": costs}), carrier=PARQUET)
    assert (batch.format, batch.rows, batch.total_usd) == (FOCUS, 2, Decimal(total))


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms", tz="UTC"), pa.string()]
)
def test_times_are_read_from_any_type(kind: Any) -> None:
    moment = datetime(2026, 11, 3, 23, 0, tzinfo=UTC)
    value = moment.isoformat() if kind == pa.string() else moment
    array = pa.array([value], type=kind)
    batch = read(parquet_of({"ChargePeriodStart": array}), carrier=PARQUET)
    assert units_of(batch) == {("shop", "2026-11-03"): "1.25"}


def test_times_are_turned_to_utc() -> None:
    array = pa.array(
        [datetime(2026, 11, 3, 23, 0, tzinfo=UTC)], pa.timestamp("us", tz="Asia/Tokyo")
    )
    batch = read(parquet_of({"ChargePeriodStart": array}), carrier=PARQUET)
    assert units_of(batch) == {("shop", "2026-11-03"): "1.25"}


@pytest.mark.parametrize(
    "tags",
    [
        pa.array([[("team", "x"), ("project", "shop")]], type=pa.map_(pa.string(), pa.string())),
        pa.array([{"project": "shop"}]),
        pa.array(['{"project": "shop"}']),
        pa.array([b'{"project": "shop"}']),
    ],
    ids=["map", "struct", "text", "bytes"],
)
def test_tags_are_read_from_any_type(tags: Any) -> None:
    batch = read(parquet_of({"Tags": tags}), carrier=PARQUET)
    assert units_of(batch) == {("shop", "2026-11-03"): "1.25"}


def test_nulls_are_nulls() -> None:
    batch = read(
        parquet_of(
            {
                "Tags": pa.array([None], pa.map_(pa.string(), pa.string())),
                "SubAccountId": pa.array([None], pa.string()),
            }
        ),
        carrier=PARQUET,
    )
    assert units_of(batch) == {("unassigned", "2026-11-03"): "1.25"}


def test_rows_beyond_a_batch_are_read_and_counted() -> None:
    costs = pa.array(["0.01"] * 5000)
    batch = read(parquet_of({"BilledCost": costs}, row_group_size=700), carrier=PARQUET)
    assert (batch.rows, batch.total_usd) == (5000, Decimal(50))


@pytest.mark.parametrize(
    ("column", "values", "code"),
    [
        ("BilledCost", pa.array([1.0, float("nan"), None]), "invalid_amount"),
        ("BilledCost", pa.array([1.0, float("inf"), 1e300]), "invalid_amount"),
        ("BillingCurrency", pa.array(["USD", "EUR", "USD"]), "currency_mismatch"),
        ("ProviderName", pa.array(["AWS", None, "AWS"]), "required"),
    ],
)
def test_a_bad_row_refuses_the_file(column: str, values: Any, code: str) -> None:
    with pytest.raises(CostFileRefused) as caught:
        read(parquet_of({column: values}), carrier=PARQUET)
    assert (caught.value.errors[0].pointer, caught.value.errors[0].code) == (
        f"/rows/2/{column}",
        code,
    )


def test_a_missing_column_is_named() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"BilledCost": ["1"], "Tags": ["{}"]}), stream)
    with pytest.raises(CostFileRefused) as caught:
        read(stream.getvalue(), carrier=PARQUET)
    assert [error.pointer for error in caught.value.errors] == [
        "/header/BillingCurrency",
        "/header/ChargePeriodStart",
        "/header/BillingAccountId",
        "/header/ProviderName",
    ]


def whole() -> bytes:
    return parquet_of({"BilledCost": pa.array(["1"] * 50)})


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PAR1", b"PAR1PAR1", whole()[:-5], whole()[:100] + whole()[-60:],
        whole()[:4] + b"\x00" * 500 + whole()[504:], b"date,project,amount\n",
    ],
)  # fmt: skip
def test_what_is_not_parquet_is_unreadable(content: bytes) -> None:
    with pytest.raises(CostFileUnreadable):
        read(content, carrier=PARQUET)


def test_a_cell_that_is_too_long_is_refused_before_it_is_repeated() -> None:
    content = parquet_of({"Tags": pa.array(["x" * 100_000] * 3000)}, compression="zstd")
    assert len(content) < 300_000
    with pytest.raises(CostFileUnreadable, match="A cell has more than"):
        read(content, carrier=PARQUET)


def test_a_file_is_known_by_how_it_begins() -> None:
    assert find_carrier(io.BytesIO(whole())) == PARQUET
    assert find_carrier(io.BytesIO(b"date,project,amount")) == "csv"


def test_arrow_is_loaded_by_the_first_parquet_file_only() -> None:
    code = "import sys, billing.costs.files; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
