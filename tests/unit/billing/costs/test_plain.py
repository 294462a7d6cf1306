"""Plain rows, as CSV with or without a header and as JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.costs.domain import PLAIN, CostFileRefused, CostFileUnreadable
from billing.costs.files import JSON
from tests.unit.billing.costs.samples import json_of, read, units_of

ROW = {"date": "2026-11-03", "project": "shop", "amount": "12.50"}


def faults(content: bytes, carrier: str = "csv") -> list[tuple[str, str]]:
    with pytest.raises(CostFileRefused) as caught:
        read(content, carrier=carrier)
    return [(error.pointer, error.code) for error in caught.value.errors]


@pytest.mark.parametrize(
    "content",
    [
        b"date,project,amount\n2026-11-03,shop,12.50\n",
        b"2026-11-03,shop,12.50",
        b"\xef\xbb\xbfAmount,DATE,Project\r\n12.50,2026-11-03,shop\r\n",
        b"project_id,amount_usd,date,currency\rshop,12.50,2026-11-03,USD\r",
        b'date,project,amount\n2026-11-03," shop ","12.00"\n\n,,\n2026-11-03,shop,0.50\n',
    ],
)
def test_rows_are_read(content: bytes) -> None:
    batch = read(content)
    assert (batch.format, units_of(batch)) == (PLAIN, {("shop", "2026-11-03"): "12.50"})
    (unit,) = batch.units
    assert (unit.key.provider, unit.key.billing_account_id) == ("", "")


def test_a_day_that_has_ended_is_final() -> None:
    now = datetime(2026, 11, 3, 23, 59, tzinfo=UTC)
    batch = read(b"2026-11-02,shop,1\n2026-11-03,shop,1\n", now=now)
    assert [(unit.key.date.day, unit.is_final) for unit in batch.units] == [(2, True), (3, False)]


def test_projects_may_have_any_printable_name() -> None:
    batch = read('date,project,amount\n2026-11-03,"=SUM(A1),ü",-5\n'.encode())
    assert units_of(batch) == {("=SUM(A1),ü", "2026-11-03"): "-5"}


@pytest.mark.parametrize(
    ("line", "place", "code"),
    [
        ("2026-11-03,shop,1e3", "amount", "invalid_amount"),
        ("2026-11-03,shop,NaN", "amount", "invalid_amount"),
        ("2026-11-03,shop,+1", "amount", "invalid_amount"),
        ("2026-11-03,shop," + "9" * 5000, "amount", "invalid_amount"),
        ("2026-11-03,shop,1000000000000.01", "amount", "invalid_amount"),
        ("2026-11-03,shop,", "amount", "invalid_amount"),
        ("2026-02-29,shop,1", "date", "invalid_date"),
        ("03.11.2026,shop,1", "date", "invalid_date"),
        ("2026-11-03,,1", "project", "invalid_project"),
        ("2026-11-03,a\x00b,1", "project", "invalid_project"),
        ("2026-11-03," + "x" * 201 + ",1", "project", "invalid_project"),
    ],
)
def test_a_bad_row_refuses_the_file(line: str, place: str, code: str) -> None:
    content = f"date,project,amount\n2026-11-01,shop,1\n{line}\n".encode()
    assert faults(content) == [(f"/lines/3/{place}", code)]


def test_a_row_of_another_width_refuses_the_file() -> None:
    content = b"date,project,amount\n2026-11-03,shop\n2026-11-03,shop,1,2\n"
    assert faults(content) == [
        ("/lines/2", "wrong_number_of_cells"),
        ("/lines/3", "wrong_number_of_cells"),
    ]


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("date,amount", ("/header/project", "missing_column")),
        ("date,project,amount,waehrung", ("/header", "unknown_column")),
        ("date,project,amount,Date", ("/header/date", "duplicate_column")),
        ("foo,bar", ("/header/BilledCost", "missing_column")),
    ],
)
def test_a_header_that_is_none_is_refused(header: str, error: tuple[str, str]) -> None:
    assert faults(f"{header}\n".encode()) == [error]


def test_two_columns_for_one_thing_are_refused() -> None:
    with pytest.raises(CostFileRefused, match="both amount and amount_usd"):
        read(b"date,project,amount,amount_usd\n")


def test_another_currency_is_refused() -> None:
    content = b"date,project,amount,currency\n2026-11-03,shop,1,EUR\n"
    assert faults(content) == [("/lines/2/currency", "currency_mismatch")]


def test_json_rows_are_read_exactly() -> None:
    text = b'{"rows": [{"date": "2026-11-03", "project": "shop", "amount": 0.1},'
    text += b'{"date": "2026-11-03", "project": "shop", "amount": "0.2"},'
    text += b'{"date": "2026-11-03", "project": "shop", "amount": 1e-5, "currency": "USD"}]}'
    (unit,) = read(text, carrier=JSON).units
    assert unit.amount_usd == Decimal("0.30001")
    assert unit.key.date == date(2026, 11, 3)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"amount": True}, ("/rows/1/amount", "invalid_type")),
        ({"amount": None}, ("/rows/1/amount", "required")),
        ({"amount": "1e3"}, ("/rows/1/amount", "invalid_amount")),
        ({"date": 20261103}, ("/rows/1/date", "invalid_type")),
        ({"project": None}, ("/rows/1/project", "required")),
        ({"currency": "EUR"}, ("/rows/1/currency", "currency_mismatch")),
        ({"team": "x"}, ("/rows/1/team", "unknown_field")),
    ],
)
def test_a_bad_json_row_is_pointed_at(row: dict[str, Any], error: tuple[str, str]) -> None:
    assert faults(json_of(ROW, ROW | row), JSON) == [error]


def test_a_row_that_is_no_object_is_pointed_at() -> None:
    assert faults(json_of([1], ROW), JSON) == [("/rows/0", "invalid_type")]


@pytest.mark.parametrize(
    "document", [b"[]", b"{}", b'{"rows": {}}', b'{"rows": [], "x": 1}', b'{"rows": []}']
)
def test_a_document_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(CostFileRefused if document == b'{"rows": []}' else Exception) as caught:
        read(document, carrier=JSON)
    assert caught.value.status == 422


@pytest.mark.parametrize("document", [b"", b"{", b'{"rows": [NaN]}', b'{"a": 1, "a": 2}'])
def test_what_is_not_json_is_unreadable(document: bytes) -> None:
    with pytest.raises(CostFileUnreadable) as caught:
        read(document, carrier=JSON)
    assert caught.value.problem_code == "malformed_json"


@pytest.mark.parametrize(("carrier", "file_format"), [("json", "focus"), ("parquet", "plain")])
def test_a_format_that_the_carrier_has_not_is_refused(carrier: str, file_format: str) -> None:
    with pytest.raises(CostFileRefused, match="is read as"):
        read(b"x", carrier=carrier, file_format=file_format)
