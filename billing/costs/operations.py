"""Writes of costs: units are replaced; their days' totals and the months' histories follow at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from django.db import connection

from billing.costs.domain import (
    CostBatch,
    CostFileRefused,
    DayAmount,
    Unit,
    UnitKey,
)
from billing.costs.models import SubAccountProject
from billing.costs.queries import find_absent, find_units, key_columns, lock_days, sum_units
from valdrix.kernel.db import transaction_required
from valdrix.kernel.money import MONTHLY_PLACES, AmountError, round_amount

_T = TypeVar("_T")
_UNITS_A_STATEMENT: Final = 10_000

_CLAIM: Final = """
INSERT INTO billing_cost_ingestion
    (id, tenant_id, content_sha256, file_format, size_bytes, row_count, unit_count,
     first_date, last_date, total_usd, ingested_at, ingested_by)
VALUES (%(id)s, %(tenant)s, %(sha256)s, %(format)s, %(size)s, %(rows)s, %(units)s,
        %(first)s, %(last)s, %(total)s, %(at)s, %(by)s)
ON CONFLICT (tenant_id, content_sha256) DO NOTHING
"""

# Rows that the totals of new days are kept in. They are in one order everywhere, so that two
# calls for the same days wait and never deadlock.
_OPEN_DAYS: Final = """
INSERT INTO billing_daily_cost (tenant_id, project_id, date, amount_usd, is_final, ingested_at)
SELECT %(tenant)s, day.project_id, day.date, 0, false, %(at)s
  FROM unnest(%(projects)s::text[], %(dates)s::date[]) AS day(project_id, date)
 ORDER BY day.project_id COLLATE "C", day.date
ON CONFLICT (tenant_id, project_id, date) DO NOTHING
RETURNING project_id, date
"""
_REPLACE_UNITS: Final = """
INSERT INTO billing_cost_unit
    (tenant_id, project_id, date, provider, billing_account_id, correction_month,
     amount_usd, is_final, charge_count, ingestion_id, ingested_at)
SELECT %(tenant)s, unit.*, %(ingestion)s, %(at)s
  FROM unnest(%(projects)s::text[], %(dates)s::date[], %(providers)s::text[], %(accounts)s::text[],
              %(months)s::date[], %(amounts)s::numeric[], %(finals)s::bool[], %(charges)s::int[])
       AS unit
ON CONFLICT (tenant_id, project_id, date, provider, billing_account_id, correction_month)
DO UPDATE
   SET amount_usd = excluded.amount_usd, is_final = excluded.is_final,
       charge_count = excluded.charge_count, ingestion_id = excluded.ingestion_id,
       ingested_at = excluded.ingested_at
"""
# A day whose total stands as it was is not written: nothing changed.
_KEEP_TOTALS: Final = """
UPDATE billing_daily_cost AS kept
   SET amount_usd = day.amount_usd, is_final = day.is_final, ingested_at = %(at)s
  FROM unnest(%(projects)s::text[], %(dates)s::date[], %(amounts)s::numeric[], %(finals)s::bool[])
       AS day(project_id, date, amount_usd, is_final)
 WHERE kept.tenant_id = %(tenant)s AND kept.project_id = day.project_id AND kept.date = day.date
   AND (kept.amount_usd, kept.is_final) IS DISTINCT FROM (day.amount_usd, day.is_final)
RETURNING kept.project_id, kept.date
"""
_KEEP_HISTORY: Final = """
SELECT billing_keep_cost_history(%(tenant)s, %(projects)s::text[], %(dates)s::date[])
"""


@dataclass(frozen=True, slots=True)
class IngestionOrigin:
    """Which file is taken, under which id, by whom and when.

    :ivar content_sha256: of the file's bytes, in hex.
    """

    tenant_id: uuid.UUID
    ingestion_id: uuid.UUID
    content_sha256: str
    size_bytes: int
    principal_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Restatement:
    """A unit that stood and was replaced: by another amount, or by a final one."""

    before: Unit
    after: Unit


@dataclass(frozen=True, slots=True)
class Taken:
    """What taking a file changed.

    :ivar units_absent: units of the same bills and days that the file does not name: costs that
        moved to another project are counted twice while these stand.
    :ivar restated: units that stood and are different now.
    """

    units_added: int
    units_unchanged: int
    units_absent: int
    restated: tuple[Restatement, ...]


def record_daily_costs(
    *, tenant_id: uuid.UUID, days: Sequence[DayAmount], ingested_at: datetime
) -> int:
    """Record what projects spent as plain rows do, replacing those that are known already.

    :return: how many days are new or different.
    :raises ValueError: when a project's day occurs twice.
    :raises AmountError: when an amount is not finite or has more than 4 decimals.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    units = [
        Unit(
            key=UnitKey(project_id=day.project_id, date=day.date),
            amount_usd=day.amount_usd,
            is_final=day.is_final,
        )
        for day in days
    ]
    if len({unit.key for unit in units}) != len(units):
        raise ValueError("a project's day occurs twice")
    if not units:
        return 0
    for unit in units:
        exponent = unit.amount_usd.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -MONTHLY_PLACES:
            raise AmountError(f"must be finite, with at most {MONTHLY_PLACES} decimals")
    opened = _open_days(tenant_id, units, at=ingested_at)
    known = find_units(tenant_id, [unit.key for unit in units])
    changed = [unit for unit in units if _differs(known.get(unit.key), unit)]
    written = opened | _replace(tenant_id, changed, ingestion_id=None, at=ingested_at)
    _keep_history(tenant_id, written)
    return len(written)


def take_batch(*, origin: IngestionOrigin, batch: CostBatch, has_whole_days: bool) -> Taken | None:
    """Take all that a file says, or nothing: None when the file was taken before.

    A second transaction that takes the same file waits here for the first.

    :param has_whole_days: the file names all that its bills have of its days: units of theirs
        that it does not name become zero.
    :raises CostFileRefused: when a day's total becomes larger than its column holds.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    tenant_id = origin.tenant_id
    if not _claim(origin, batch):
        return None
    absent = [
        Unit(key=key, amount_usd=Decimal(0), is_final=True, charges=0)
        for key in find_absent(tenant_id, (unit.key for unit in batch.units))
    ]
    units = [*batch.units, *absent] if has_whole_days else batch.units
    opened = _open_days(tenant_id, units, at=origin.at)
    known: dict[UnitKey, Unit] = {}
    for some in _chunks(units):
        known |= find_units(tenant_id, [unit.key for unit in some])
    changed = [unit for unit in units if _differs(known.get(unit.key), unit)]
    try:
        written = _replace(tenant_id, changed, ingestion_id=origin.ingestion_id, at=origin.at)
    except AmountError as error:
        raise CostFileRefused(f"The total of a project's day {error}.") from error
    _keep_history(tenant_id, opened | written)
    return Taken(
        units_added=len(units) - len(known),
        units_unchanged=len(units) - len(changed),
        units_absent=len(absent),
        restated=tuple(
            Restatement(before=known[unit.key], after=unit) for unit in changed if unit.key in known
        ),
    )


def map_sub_account(
    *, tenant_id: uuid.UUID, sub_account_id: str, project_id: str | None
) -> str | None:
    """Say which project a sub-account belongs to from the next file on; None forgets it.

    :return: the project that it belonged to before.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    rows = SubAccountProject.objects.filter(tenant_id=tenant_id, sub_account_id=sub_account_id)
    before: str | None = rows.values_list("project_id", flat=True).first()
    if project_id is None:
        rows.delete()
    else:
        SubAccountProject.objects.update_or_create(
            tenant_id=tenant_id,
            sub_account_id=sub_account_id,
            defaults={"project_id": project_id},
        )
    return before


def _claim(origin: IngestionOrigin, batch: CostBatch) -> bool:
    """Record that a file is taken; False when it was taken before."""
    dates = [unit.key.date for unit in batch.units]
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM,
            {
                "id": origin.ingestion_id,
                "tenant": origin.tenant_id,
                "sha256": origin.content_sha256,
                "format": batch.format,
                "size": origin.size_bytes,
                "rows": batch.rows,
                "units": len(batch.units),
                "first": min(dates),
                "last": max(dates),
                "total": batch.total_usd,
                "at": origin.at,
                "by": origin.principal_id,
            },
        )
        return bool(cursor.rowcount)


def _open_days(
    tenant_id: uuid.UUID, units: Sequence[Unit], *, at: datetime
) -> set[tuple[str, date]]:
    """Lock the kept totals of the units' days, making those that are not there yet.

    The lock comes before any unit is read: a sum of units is taken by a later statement, which
    sees what the one waited for has committed.

    :return: the days that are new.
    """
    days = sorted({(unit.key.project_id, unit.key.date) for unit in units})
    opened: set[tuple[str, date]] = set()
    for some in _chunks(days):
        with connection.cursor() as cursor:
            cursor.execute(_OPEN_DAYS, {"tenant": tenant_id, "at": at, **_day_columns(some)})
            opened.update(cursor.fetchall())
    for some in _chunks(days):
        lock_days(tenant_id, some)
    return opened


def _replace(
    tenant_id: uuid.UUID, units: Sequence[Unit], *, ingestion_id: uuid.UUID | None, at: datetime
) -> set[tuple[str, date]]:
    """Write units and then the totals of their days, whose rows are locked.

    :return: the days whose total is different now.
    :raises AmountError: when a day's total is above 1e12 in magnitude.
    """
    origin: dict[str, Any] = {"tenant": tenant_id, "ingestion": ingestion_id, "at": at}
    with connection.cursor() as cursor:
        for some in _chunks(units):
            columns = {
                **key_columns(unit.key for unit in some),
                "amounts": [unit.amount_usd for unit in some],
                "finals": [unit.is_final for unit in some],
                "charges": [unit.charges for unit in some],
            }
            cursor.execute(_REPLACE_UNITS, {**origin, **columns})
    written: set[tuple[str, date]] = set()
    for days in _chunks(sorted({(unit.key.project_id, unit.key.date) for unit in units})):
        sums = sum_units(tenant_id, days)
        totals = {
            **_day_columns([(project, day) for project, day, _, _ in sums]),
            "amounts": [round_amount(total, places=MONTHLY_PLACES) for _, _, total, _ in sums],
            "finals": [is_final for _, _, _, is_final in sums],
        }
        with connection.cursor() as cursor:
            cursor.execute(_KEEP_TOTALS, {**origin, **totals})
            written.update(cursor.fetchall())
    return written


def _keep_history(tenant_id: uuid.UUID, days: set[tuple[str, date]]) -> None:
    """Bring up to date what gates read of some days, whose rows are all locked already."""
    with connection.cursor() as cursor:
        for some in _chunks(sorted(days)):
            cursor.execute(_KEEP_HISTORY, {"tenant": tenant_id, **_day_columns(some)})


def _differs(known: Unit | None, unit: Unit) -> bool:
    return known is None or (known.amount_usd, known.is_final) != (unit.amount_usd, unit.is_final)


def _day_columns(days: Sequence[tuple[str, date]]) -> dict[str, Any]:
    return {"projects": [project for project, _ in days], "dates": [day for _, day in days]}


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _UNITS_A_STATEMENT):
        yield items[start : start + _UNITS_A_STATEMENT]
