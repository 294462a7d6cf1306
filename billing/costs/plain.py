"""Plain rows ``date,project,amount``, as CSV or as ``{"rows": […]}``. Pure.

Amounts are US dollars in plain decimal grammar, without an exponent. Several rows of one project
and day are added up. A row of a day that has ended is final.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import IO, Any, Final

from billing.costs.domain import (
    PROJECT_LIMIT,
    Charge,
    CostFileRefused,
    CostFileUnreadable,
    RowFault,
    UnitKey,
    check_amount,
    has_ended,
    is_project_id,
    parse_day,
)
from billing.costs.tables import Table, column_name, find_columns, require_columns
from valdrix.kernel import strict_json
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import FieldError

DATE: Final = ("date",)
PROJECT: Final = ("project", "project_id")
AMOUNT: Final = ("amount", "amount_usd")
CURRENCY: Final = "currency"
_FIELDS: Final = ("date", "project", "amount")
_KNOWN: Final = (*DATE, *PROJECT, *AMOUNT, CURRENCY)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_NUMBER_LIMIT: Final = 64
_DATE_LIKE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)

Placed = tuple[str, Charge | RowFault]


def read_charges(stream: IO[bytes], *, now: datetime) -> Iterator[Placed]:
    """Give each row of a CSV file as a charge or as what is wrong with it, and its place.

    A file of three columns whose first row begins with a day has no header.

    :raises CostFileUnreadable: when the stream is not CSV.
    :raises CostFileRefused: when a column is missing, unknown or there twice.
    """
    table = Table(stream)
    if has_no_header(table.first):
        places = {name: at for at, name in enumerate(_FIELDS)}
        yield _placed("lines/1", dict(zip(_FIELDS, table.first, strict=True)), now)
    else:
        places = _find_places(table.first)
    for line, cells in table.rows():
        if isinstance(cells, RowFault):
            yield f"lines/{line}", cells
        else:
            yield _placed(
                f"lines/{line}", {name: cells[at].strip() for name, at in places.items()}, now
            )


def read_document(stream: IO[bytes], *, now: datetime) -> Iterator[Placed]:
    """Give each row of a JSON document ``{"rows": [{"date", "project", "amount"}]}``.

    :raises CostFileUnreadable: when the stream is not strict JSON.
    :raises CostFileRefused: when it is no such document.
    """
    try:
        document = strict_json.loads(stream.read())
    except strict_json.StrictJsonError as error:
        raise CostFileUnreadable(
            f"The body cannot be read: {error}.", code="malformed_json"
        ) from None
    fields = Fields(document)
    rows = fields.raw("rows", required=True)
    if rows is not None and not isinstance(rows, list):
        fields.refuse("rows", "must be a list", code="invalid_type")
    fields.finish()
    for number, row in enumerate(rows):
        yield _placed(f"rows/{number}", row, now)


def has_no_header(first: Sequence[str]) -> bool:
    """Tell whether a file's first row is a row of costs already."""
    return len(first) == len(_FIELDS) and _DATE_LIKE.fullmatch(first[0].strip()) is not None


def is_plain_header(header: Sequence[str]) -> bool:
    """Tell whether a header has a column of plain rows that FOCUS does not have."""
    return not {column_name(cell) for cell in header}.isdisjoint((*DATE, *AMOUNT))


def _find_places(header: Sequence[str]) -> dict[str, int]:
    unknown = [cell for cell in header if column_name(cell) not in _KNOWN]
    found = find_columns(header, _KNOWN)
    require_columns(found, DATE, PROJECT, AMOUNT)
    if unknown:
        # A column that says more, such as a currency under another name, is not passed over.
        raise CostFileRefused(
            "The file has columns that plain rows do not have.",
            errors=tuple(
                FieldError("/header", "unknown_column", f"{cell.strip()[:80]!r} is not a column")
                for cell in unknown[:20]
            ),
        )
    for group in (PROJECT, AMOUNT):
        if all(name in found for name in group):
            raise CostFileRefused(f"The header names both {group[0]} and {group[1]}.")
    places = {
        group[0]: found[name]
        for group in (DATE, PROJECT, AMOUNT)
        for name in group
        if name in found
    }
    if CURRENCY in found:
        places[CURRENCY] = found[CURRENCY]
    return places


def _placed(place: str, row: object, now: datetime) -> Placed:
    try:
        return place, _read_row(row, now)
    except RowFault as fault:
        return place, fault


def _read_row(row: object, now: datetime) -> Charge:
    if not isinstance(row, Mapping):
        raise RowFault("", "must be an object", code="invalid_type")
    unknown = next((name for name in row if name not in {*_FIELDS, CURRENCY}), None)
    if unknown is not None:
        raise RowFault(str(unknown)[:80], "is not a field of a row", code="unknown_field")
    if row.get(CURRENCY, "USD") != "USD":
        raise RowFault(CURRENCY, "must be USD: nothing is converted", code="currency_mismatch")
    day = parse_day(_text(row, "date").strip(), "date")
    project_id = _text(row, "project").strip()
    if not is_project_id(project_id):
        detail = f"must be 1 to {PROJECT_LIMIT} printable characters"
        raise RowFault("project", detail, code="invalid_project")
    return Charge(
        key=UnitKey(project_id=project_id, date=day),
        amount_usd=_amount(row.get("amount")),
        is_final=has_ended(day, now=now),
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise RowFault(name, "is required", code="required")
    if not isinstance(value, str):
        raise RowFault(name, "must be a string", code="invalid_type")
    return value


def _amount(value: object) -> Decimal:
    if value is None:
        raise RowFault("amount", "is required", code="required")
    if isinstance(value, Decimal):
        return check_amount(value, "amount")
    if isinstance(value, int) and not isinstance(value, bool):
        return check_amount(Decimal(value), "amount")
    if not isinstance(value, str):
        raise RowFault("amount", "must be a decimal string or a number", code="invalid_type")
    text = value.strip()
    if len(text) > _NUMBER_LIMIT or not _NUMBER.fullmatch(text):
        raise RowFault("amount", "must be a plain decimal such as 12.50", code="invalid_amount")
    return check_amount(Decimal(text), "amount")
