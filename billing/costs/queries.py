"""Reads of costs."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from django.db import connection
from django.db.models import Max, Min, Sum

from billing.costs.domain import DayAmount, Unit, UnitKey
from billing.costs.models import CostIngestion, DailyCost, SubAccountProject
from valdrix.kernel.money import EXACT

_LOCK_DAYS: Final = """
WITH named AS (
    SELECT * FROM unnest(%(projects)s::text[], %(dates)s::date[]) AS named(project_id, date))
SELECT count(*) FROM (
    SELECT c.id FROM billing_daily_cost c JOIN named USING (project_id, date)
     WHERE c.tenant_id = %(tenant)s
     ORDER BY c.project_id COLLATE "C", c.date FOR UPDATE OF c) AS locked
"""
_UNITS: Final = """
WITH named AS (
    SELECT * FROM unnest(%(projects)s::text[], %(dates)s::date[], %(providers)s::text[],
                         %(accounts)s::text[], %(months)s::date[])
           AS named(project_id, date, provider, billing_account_id, correction_month))
SELECT u.project_id, u.date, u.provider, u.billing_account_id, u.correction_month,
       u.amount_usd, u.is_final, u.charge_count
  FROM billing_cost_unit u JOIN named USING (project_id, date, provider, billing_account_id)
 WHERE u.tenant_id = %(tenant)s AND u.correction_month IS NOT DISTINCT FROM named.correction_month
"""
_BILLS: Final = """
SELECT u.project_id, u.date, u.provider, u.billing_account_id, u.correction_month
  FROM billing_cost_unit u
  JOIN unnest(%(dates)s::date[], %(providers)s::text[], %(accounts)s::text[])
       AS bill(date, provider, billing_account_id) USING (date, provider, billing_account_id)
 WHERE u.tenant_id = %(tenant)s AND u.correction_month IS NULL AND u.amount_usd <> 0
"""
_SUMS: Final = """
WITH named AS (
    SELECT * FROM unnest(%(projects)s::text[], %(dates)s::date[]) AS named(project_id, date))
SELECT u.project_id, u.date, sum(u.amount_usd), bool_and(u.is_final)
  FROM billing_cost_unit u JOIN named USING (project_id, date)
 WHERE u.tenant_id = %(tenant)s GROUP BY u.project_id, u.date
"""


@dataclass(frozen=True, slots=True)
class ProjectSpending:
    """A project's days as the gate would read them.

    :ivar place: where the project stands in the list: the id of its first row, 0 for none.
    """

    place: int
    project_id: str
    days: tuple[DayAmount, ...]


def find_latest_cost_date(tenant_id: uuid.UUID, project_id: str) -> date | None:
    """Return the newest UTC day of which a project has a cost, or None."""
    rows = DailyCost.objects.filter(tenant_id=tenant_id, project_id=project_id)
    latest: date | None = rows.aggregate(latest=Max("date"))["latest"]
    return latest


def spend_between(
    tenant_id: uuid.UUID, projects: Collection[str], *, since: date, until: date
) -> dict[str, Decimal]:
    """Return what projects spent from one day to another, both included, in US dollars.

    A project without ingested costs in that time is left out.
    """
    if not projects:
        return {}
    rows = DailyCost.objects.filter(
        tenant_id=tenant_id, project_id__in=projects, date__range=(since, until)
    )
    return dict(rows.values_list("project_id").annotate(total=Sum("amount_usd")))


def find_ingestion(tenant_id: uuid.UUID, content_sha256: str) -> CostIngestion | None:
    """Return when and by whom a file was taken, or None if it was not."""
    return CostIngestion.objects.filter(tenant_id=tenant_id, content_sha256=content_sha256).first()


def read_sub_accounts(tenant_id: uuid.UUID) -> dict[str, str]:
    """Return the tenant's map from sub-accounts to projects."""
    rows = SubAccountProject.objects.filter(tenant_id=tenant_id)
    return dict(rows.values_list("sub_account_id", "project_id"))


def find_spending(
    tenant_id: uuid.UUID, *, since: date, until: date, after: int, limit: int
) -> list[ProjectSpending]:
    """Return up to ``limit`` projects that ever had a cost, in the order they were first seen.

    :param since: the first UTC day of each project's days; ``until`` is the last.
    :param after: the place of the last project that was seen already.
    """
    rows = DailyCost.objects.filter(tenant_id=tenant_id)
    places = (
        rows.values("project_id")
        .annotate(place=Min("id"))
        .filter(place__gt=after)
        .order_by("place")
    )
    found = [(row["place"], row["project_id"]) for row in places[:limit]]
    days = _days(tenant_id, [project for _, project in found], since=since, until=until)
    return [
        ProjectSpending(place, project, tuple(days.get(project, ()))) for place, project in found
    ]


def get_spending(
    tenant_id: uuid.UUID, project_id: str, *, since: date, until: date
) -> ProjectSpending:
    """Return one project's days; a project that nothing is known of has none."""
    days = _days(tenant_id, [project_id], since=since, until=until)
    return ProjectSpending(0, project_id, tuple(days.get(project_id, ())))


def _days(
    tenant_id: uuid.UUID, projects: Collection[str], *, since: date, until: date
) -> dict[str, list[DayAmount]]:
    rows = DailyCost.objects.filter(
        tenant_id=tenant_id, project_id__in=projects, date__range=(since, until)
    ).order_by("project_id", "date")
    found: dict[str, list[DayAmount]] = {}
    for row in rows:
        day = DayAmount(
            project_id=row.project_id,
            date=row.date,
            amount_usd=row.amount_usd,
            is_final=row.is_final,
        )
        found.setdefault(row.project_id, []).append(day)
    return found


def lock_days(tenant_id: uuid.UUID, days: Sequence[tuple[str, date]]) -> None:
    """Lock the kept totals of projects' days, which stand for their units too, in one order."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_DAYS, _named_days(tenant_id, days))
        (locked,) = cursor.fetchone()
    assert locked == len(days), "a day to be locked has no kept total"


def find_units(tenant_id: uuid.UUID, keys: Sequence[UnitKey]) -> dict[UnitKey, Unit]:
    """Return those units of the given keys that are known."""
    with connection.cursor() as cursor:
        cursor.execute(_UNITS, {"tenant": tenant_id, **key_columns(keys)})
        rows = cursor.fetchall()
    found = {}
    for *key, amount, is_final, charges in rows:
        unit = Unit(
            key=UnitKey(*key),
            amount_usd=EXACT.normalize(amount),  # The column pads it with zeros.
            is_final=is_final,
            charges=charges,
        )
        found[unit.key] = unit
    return found


def find_absent(tenant_id: uuid.UUID, keys: Iterable[UnitKey]) -> list[UnitKey]:
    """Return the units that the named bills have on the named days, less the named ones and zeros.

    Plain rows are no bill, and a correction says nothing of the day that it corrects.
    """
    named = {key for key in keys if key.provider and key.correction_month is None}
    bills = sorted({(key.date, key.provider, key.billing_account_id) for key in named})
    columns: dict[str, Any] = {
        "dates": [day for day, _, _ in bills],
        "providers": [provider for _, provider, _ in bills],
        "accounts": [account for _, _, account in bills],
    }
    with connection.cursor() as cursor:
        cursor.execute(_BILLS, {"tenant": tenant_id, **columns})
        known = [UnitKey(*row) for row in cursor.fetchall()]
    return [key for key in known if key not in named]


def sum_units(
    tenant_id: uuid.UUID, days: Sequence[tuple[str, date]]
) -> list[tuple[str, date, Decimal, bool]]:
    """Return of each project's day the exact sum of its units, and whether all are final."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMS, _named_days(tenant_id, days))
        return list(cursor.fetchall())


def key_columns(keys: Iterable[UnitKey]) -> dict[str, list[Any]]:
    """Return unit keys as the arrays that statements unnest."""
    listed = list(keys)
    return {
        "projects": [key.project_id for key in listed],
        "dates": [key.date for key in listed],
        "providers": [key.provider for key in listed],
        "accounts": [key.billing_account_id for key in listed],
        "months": [key.correction_month for key in listed],
    }


def _named_days(tenant_id: uuid.UUID, days: Sequence[tuple[str, date]]) -> dict[str, Any]:
    return {
        "tenant": tenant_id,
        "projects": [project for project, _ in days],
        "dates": [day for _, day in days],
    }
