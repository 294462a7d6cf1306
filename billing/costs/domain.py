"""What projects spent: charges of a bill, units that replace one another, days. Pure.

A *charge* is one row of a file. A *unit* is what one bill says of one project on one day: the
exact sum of its charges. A *day* is what the gate reads: the sum of a project's units, rounded
once, half up, to 4 decimals (SPEC 3.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from valdrix.kernel.money import EXACT, MAGNITUDE_LIMIT
from valdrix.kernel.problems import FieldError, InvalidRequest, Refused

Month = date
"""A month, as its first day."""

FOCUS: Final = "focus"
PLAIN: Final = "plain"
AUTO: Final = "auto"
FORMATS: Final = (FOCUS, PLAIN)

UNASSIGNED: Final = "unassigned"
"""The project of a charge that neither a tag nor the sub-account map gives one."""

PLAIN_PROVIDER: Final = ""
"""The provider of plain rows; FOCUS rows always name theirs, so the two never meet."""

DEFAULT_TAG_KEYS: Final = ("project",)
MOST_TAG_KEYS: Final = 10

FINAL_AFTER_DAYS: Final = 3
"""A charge without an invoice counts as final once this many whole UTC days have passed."""

UNIT_PLACES: Final = 50
"""Decimals that a unit's column holds; a charge with more is refused, never rounded."""

HISTORY_DAYS: Final = 62
"""How many days back a gate looks, today included: this month and a baseline before it."""

EARLIEST_DATE: Final = date(2000, 1, 1)
LATEST_DATE: Final = date(2099, 12, 31)

PROJECT_LIMIT: Final = 200
PROVIDER_LIMIT: Final = 100
ACCOUNT_LIMIT: Final = 200
MOST_UNITS: Final = 200_000
"""Units that one file may hold: what is kept in memory while it is read."""

_MOST_FAULTS: Final = 10_000
_MOST_FAULTS_SHOWN: Final = 100
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class CostFileUnreadable(Refused):
    """A cost file is not what it says it is: not text, not CSV, not Parquet (400)."""

    code = "malformed_body"


class CostFileRefused(InvalidRequest):
    """A cost file was read and is refused as a whole; nothing of it was written (422)."""


class RowFault(ValueError):
    """One row of a file is not valid.

    :ivar column: the column at fault, or the empty text for the row itself.
    :ivar code: stable; such as ``currency_mismatch``.
    """

    def __init__(self, column: str, detail: str, *, code: str = "invalid_value") -> None:
        super().__init__(detail)
        self.column = column
        self.code = code
        self.detail = detail


class DayAmount(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one project on one UTC day.

    :ivar amount_usd: US dollars with at most 4 decimals; below zero after credits.
    :ivar is_final: False while the provider may still restate the day.
    """

    project_id: str
    date: date
    amount_usd: Decimal
    is_final: bool = True


class UnitKey(msgspec.Struct, frozen=True, order=True):
    """What a later file replaces as one: a bill's project and UTC day.

    :ivar correction_month: first day of the billing month whose bill corrects this day of an
        earlier one; None for the day's own bill. A correction adds to that bill and never
        replaces it.
    """

    project_id: str
    date: date
    provider: str = PLAIN_PROVIDER
    billing_account_id: str = ""
    correction_month: Month | None = None


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a file: its unit, its exact amount in US dollars, and whether it is final."""

    key: UnitKey
    amount_usd: Decimal
    is_final: bool


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """The exact sum of one unit's charges, in US dollars; final when all of them are."""

    key: UnitKey
    amount_usd: Decimal
    is_final: bool
    charges: int = 1


class ProjectRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a charge finds its project: by tag, by sub-account, else ``unassigned`` (SPEC 3.4).

    :ivar tag_keys: tags in order of preference, each looked for as spelled and then in any case.
    :ivar sub_accounts: project by sub-account id.
    """

    tag_keys: tuple[str, ...] = DEFAULT_TAG_KEYS
    sub_accounts: Mapping[str, str] = {}

    def project_by_tag(self, tags: Mapping[str, object]) -> str | None:
        """Return the project that tags name, or None; a value that is no project names none."""
        folded: dict[str, object] | None = None
        for key in self.tag_keys:
            value = tags.get(key)
            if value is None:
                if folded is None:
                    # Of two keys that differ in case only, the first in sorted order counts.
                    folded = {name.strip().casefold(): tags[name] for name in sorted(tags)[::-1]}
                value = folded.get(key.casefold())
            if isinstance(value, str) and is_project_id(value.strip()):
                return value.strip()
        return None

    def project_of(self, *, tagged: str | None, sub_account_id: str | None) -> str:
        """Return the project of a charge."""
        if tagged is not None:
            return tagged
        return self.sub_accounts.get(sub_account_id or "", UNASSIGNED)


class CostBatch(msgspec.Struct, frozen=True, kw_only=True):
    """All that one complete file says.

    :ivar units: in order of their keys, each once.
    """

    format: str
    rows: int
    units: tuple[Unit, ...]

    @property
    def total_usd(self) -> Decimal:
        """The exact sum of the file."""
        return exact_sum(unit.amount_usd for unit in self.units)


class Tally:
    """Adds charges up to units and collects what is wrong with rows, within bounds of memory."""

    def __init__(self) -> None:
        self.rows = 0
        self.faults = 0
        self._shown: list[FieldError] = []
        self._units: dict[UnitKey, tuple[Decimal, bool, int]] = {}

    def add(self, charge: Charge) -> None:
        """Add one charge to its unit.

        :raises CostFileRefused: when the file holds more units than are kept in memory.
        """
        self.rows += 1
        total, is_final, charges = self._units.get(charge.key, (Decimal(0), True, 0))
        self._units[charge.key] = (
            EXACT.add(total, charge.amount_usd),
            is_final and charge.is_final,
            charges + 1,
        )
        if len(self._units) > MOST_UNITS:
            raise CostFileRefused(
                f"The file names more than {MOST_UNITS} days of projects; split it by day."
            )

    def refuse(self, place: str, fault: RowFault) -> None:
        """Count a row that is not valid; the first hundred are told.

        :raises CostFileRefused: when there are so many that the rest is not worth reading.
        """
        self.rows += 1
        self.faults += 1
        if len(self._shown) < _MOST_FAULTS_SHOWN:
            pointer = f"/{place}/{fault.column}" if fault.column else f"/{place}"
            self._shown.append(FieldError(pointer, fault.code, fault.detail))
        if self.faults == _MOST_FAULTS:
            raise CostFileRefused(
                f"{self.faults} of the first {self.rows} rows are not valid; nothing was taken.",
                errors=tuple(self._shown),
            )

    def finish(self, *, file_format: str) -> CostBatch:
        """Return what the file says.

        :raises CostFileRefused: when any row is not valid, a unit's sum is beyond the column, or
            there is no row.
        """
        if self.faults:
            raise CostFileRefused(
                f"{self.faults} of {self.rows} rows are not valid; nothing of the file was taken.",
                errors=tuple(self._shown),
            )
        if not self.rows:
            raise CostFileRefused("The file holds no rows.")
        units = []
        for key in sorted(self._units, key=_order):
            amount, is_final, charges = self._units[key]
            if amount.copy_abs() > MAGNITUDE_LIMIT:
                raise CostFileRefused(
                    f"The sum of project {key.project_id} on {key.date} is above 1000000000000."
                )
            units.append(Unit(key=key, amount_usd=amount, is_final=is_final, charges=charges))
        return CostBatch(format=file_format, rows=self.rows, units=tuple(units))


def _order(key: UnitKey) -> tuple[str, date, str, str, date]:
    month = key.correction_month or date.min
    return (key.project_id, key.date, key.provider, key.billing_account_id, month)


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Return a sum in which nothing is rounded."""
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def is_project_id(text: str) -> bool:
    """Tell whether a text can name a project: printable, not blank, at most 200 characters."""
    return bool(text.strip()) and len(text) <= PROJECT_LIMIT and text.isprintable()


def check_amount(number: Decimal, column: str) -> Decimal:
    """Return an amount as it is, if a unit's column holds it exactly.

    :raises RowFault: for NaN, Infinity, more than 50 decimals or a magnitude above 1e12.
    """
    if not number.is_finite():
        raise RowFault(column, "must be a finite number", code="invalid_amount")
    if number.is_zero():
        return Decimal(0)
    # Exponents are compared before any arithmetic: 1E+999999 must cost nothing.
    if number.adjusted() > MAGNITUDE_LIMIT.adjusted() or number.copy_abs() > MAGNITUDE_LIMIT:
        raise RowFault(column, "is above 1000000000000 in magnitude", code="invalid_amount")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    while exponent < -UNIT_PLACES and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    if exponent < -UNIT_PLACES:
        raise RowFault(column, f"has more than {UNIT_PLACES} decimals", code="invalid_amount")
    return Decimal((sign, digits, exponent))


def parse_day(text: str, column: str) -> date:
    """Return the UTC day that ``YYYY-MM-DD`` names.

    :raises RowFault: for another form, a day that no calendar has, or one before 2000 or after
        2099.
    """
    if not _DAY.fullmatch(text):
        raise RowFault(column, "must be a day such as 2026-01-31", code="invalid_date")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise RowFault(column, "is no day of the calendar", code="invalid_date") from None
    return check_day(day, column)


def check_day(day: date, column: str) -> date:
    """Return a day within the range that costs can have.

    :raises RowFault: before 2000 or after 2099.
    """
    if not EARLIEST_DATE <= day <= LATEST_DATE:
        raise RowFault(column, "must lie between 2000 and 2099", code="invalid_date")
    return day


def is_settled(day: date, *, now: datetime) -> bool:
    """Tell whether a provider's figures of a day are final by age alone.

    Providers restate the newest days for up to about 72 hours; FOCUS has no column that says so.
    """
    return day + timedelta(days=FINAL_AFTER_DAYS) < now.astimezone(UTC).date()


def has_ended(day: date, *, now: datetime) -> bool:
    """Tell whether a UTC day is over, which makes a plain row of it final."""
    return day < now.astimezone(UTC).date()
