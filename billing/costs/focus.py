"""Bills in the FinOps FOCUS 1.x column set, as CSV; one charge of any carrier. Pure.

Read: ``BilledCost``, ``BillingCurrency``, ``ChargePeriodStart``, ``BillingAccountId``, the
provider (``ProviderName``, or ``ServiceProviderName`` as FOCUS 1.3 calls it), and where present
``SubAccountId``, ``Tags``, ``ChargeClass``, ``BillingPeriodStart`` and ``InvoiceId``. Other columns
are left alone. Credits, refunds and adjustments are charges like any other, below zero.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import IO, Any, Final

from billing.costs.domain import (
    ACCOUNT_LIMIT,
    PROVIDER_LIMIT,
    Charge,
    ProjectRules,
    RowFault,
    UnitKey,
    check_amount,
    check_day,
    is_settled,
)
from billing.costs.tables import Table, find_columns, require_columns
from valdrix.kernel import strict_json

AMOUNT: Final = "BilledCost"
CURRENCY: Final = "BillingCurrency"
PERIOD: Final = "ChargePeriodStart"
ACCOUNT: Final = "BillingAccountId"
PROVIDERS: Final = ("ProviderName", "ServiceProviderName")
SUB_ACCOUNT: Final = "SubAccountId"
TAGS: Final = "Tags"
CLASS: Final = "ChargeClass"
BILLING_PERIOD: Final = "BillingPeriodStart"
INVOICE: Final = "InvoiceId"
COLUMNS: Final = (
    AMOUNT,
    CURRENCY,
    PERIOD,
    ACCOUNT,
    *PROVIDERS,
    SUB_ACCOUNT,
    TAGS,
    CLASS,
    BILLING_PERIOD,
    INVOICE,
)
REQUIRED: Final = ((AMOUNT,), (CURRENCY,), (PERIOD,), (ACCOUNT,), PROVIDERS)

_CORRECTION: Final = "correction"
_TAGS_LIMIT: Final = 65_536
_NULLS: Final = frozenset({"", "NULL", "null"})
# Exponents occur in real exports; separators of thousands and other scripts' digits do not.
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_NUMBER_LIMIT: Final = 128
# FOCUS: ISO 8601 in UTC. Exports also leave out the zone, the seconds or the T, or write "UTC".
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.[0-9]{1,9})?(?: ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?)?",
    re.ASCII,
)


def read_charges(
    stream: IO[bytes], *, rules: ProjectRules, now: datetime
) -> Iterator[tuple[str, Charge | RowFault]]:
    """Give each row of a CSV file as a charge or as what is wrong with it, and its place.

    :raises CostFileUnreadable: when the stream is not CSV.
    :raises CostFileRefused: when a column is missing.
    """
    table = Table(stream)
    places = find_columns(table.first, COLUMNS)
    require_columns(places, *REQUIRED)
    to_charge = charge_reader(rules=rules, now=now)
    for line, cells in table.rows():
        place = f"lines/{line}"
        if isinstance(cells, RowFault):
            yield place, cells
            continue
        try:
            yield place, to_charge({name: cells[at] for name, at in places.items()})
        except RowFault as fault:
            yield place, fault


def charge_reader(*, rules: ProjectRules, now: datetime) -> Callable[[Mapping[str, Any]], Charge]:
    """Return the function that reads one row, given as its cells by column name.

    Cells are texts, or what Parquet has instead: decimals, times, maps.
    """

    # Bills repeat few different tags and times in very many rows.
    @functools.lru_cache(maxsize=8192)
    def project_by_text(text: str) -> str | None:
        return rules.project_by_tag(_parse_tags(text))

    def read(values: Mapping[str, Any]) -> Charge:
        currency = _text(values, CURRENCY, limit=20)
        if currency != "USD":
            raise RowFault(CURRENCY, "must be USD: nothing is converted", code="currency_mismatch")
        moment = _moment(values.get(PERIOD), PERIOD)
        day = check_day(moment.date(), PERIOD)
        tags = values.get(TAGS)
        if isinstance(tags, str):
            tagged = project_by_text(tags) if tags.strip() not in _NULLS else None
        else:
            tagged = rules.project_by_tag(dict(tags)) if tags else None
        key = UnitKey(
            project_id=rules.project_of(
                tagged=tagged, sub_account_id=_optional(values.get(SUB_ACCOUNT))
            ),
            date=day,
            provider=_provider(values),
            billing_account_id=_text(values, ACCOUNT, limit=ACCOUNT_LIMIT),
            correction_month=_correction_month(values),
        )
        is_final = _optional(values.get(INVOICE)) is not None or is_settled(day, now=now)
        return Charge(key=key, amount_usd=_amount(values.get(AMOUNT)), is_final=is_final)

    return read


def _optional(value: object) -> str | None:
    """Return a cell as text, or None where it is null, which CSV exports also spell ``NULL``."""
    if value is None:
        return None
    text = str(value).strip()
    return None if text in _NULLS else text


def _text(values: Mapping[str, Any], column: str, *, limit: int) -> str:
    text = _optional(values.get(column))
    if text is None:
        raise RowFault(column, "is required", code="required")
    if len(text) > limit:
        raise RowFault(column, f"must have at most {limit} characters", code="too_long")
    if not text.isprintable():
        raise RowFault(column, "must not hold control or other unprintable characters")
    return text


def _provider(values: Mapping[str, Any]) -> str:
    present = [name for name in PROVIDERS if _optional(values.get(name)) is not None]
    return _text(values, present[0] if present else PROVIDERS[0], limit=PROVIDER_LIMIT)


def _amount(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return check_amount(value, AMOUNT)
    text = _optional(value)
    if text is None:
        raise RowFault(AMOUNT, "is required", code="required")
    if len(text) > _NUMBER_LIMIT or not _NUMBER.fullmatch(text):
        raise RowFault(AMOUNT, "must be a decimal number", code="invalid_amount")
    return check_amount(Decimal(text), AMOUNT)


def _correction_month(values: Mapping[str, Any]) -> date | None:
    """Return the billing month of a row that corrects an earlier, invoiced month."""
    if (_optional(values.get(CLASS)) or "").casefold() != _CORRECTION:
        return None
    billed = _moment(values.get(BILLING_PERIOD), BILLING_PERIOD)
    return check_day(billed.date(), BILLING_PERIOD).replace(day=1)


def _moment(value: object, column: str) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    text = _optional(value)
    if text is None:
        raise RowFault(column, "is required", code="required")
    try:
        return _parse_moment(text)
    except (ValueError, OverflowError):
        raise RowFault(
            column, "must be a time such as 2026-01-31T12:00:00Z", code="invalid_date"
        ) from None


@functools.lru_cache(maxsize=8192)
def _parse_moment(text: str) -> datetime:
    """Return a time in UTC; without a zone it is in UTC already, as FOCUS has it."""
    match = _TIME.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        raise ValueError
    day, clock, seconds, zone = match.groups()
    offset = "+00:00" if zone in {None, "Z", "UTC"} else zone
    return datetime.fromisoformat(f"{day}T{clock or '00:00'}{seconds or ':00'}{offset}").astimezone(
        UTC
    )


def _parse_tags(text: str) -> dict[str, object]:
    if len(text) > _TAGS_LIMIT:
        raise RowFault(TAGS, f"must have at most {_TAGS_LIMIT} characters", code="too_long")
    try:
        tags = strict_json.loads(text.encode())
    except (strict_json.StrictJsonError, UnicodeEncodeError):
        raise RowFault(TAGS, "must be one JSON object", code="invalid_tags") from None
    if not isinstance(tags, dict):
        raise RowFault(TAGS, "must be one JSON object", code="invalid_tags")
    return tags
