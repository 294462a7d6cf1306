"""Writes of daily costs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from django.db import connection

from billing.costs.domain import DayAmount
from valdrix.kernel.db import transaction_required
from valdrix.kernel.money import MONTHLY_PLACES, AmountError

# A day that is recorded again as it stands is not written: nothing changed.
_RECORD = """
INSERT INTO billing_daily_cost AS kept
    (tenant_id, project_id, date, amount_usd, is_final, ingested_at)
SELECT %(tenant)s, day.project_id, day.date, day.amount_usd, day.is_final, %(at)s
  FROM unnest(%(projects)s::text[], %(dates)s::date[], %(amounts)s::numeric[], %(finals)s::bool[])
       AS day(project_id, date, amount_usd, is_final)
    -- One order of rows, so that two calls for the same days wait and never deadlock.
 ORDER BY day.project_id, day.date
ON CONFLICT (tenant_id, project_id, date) DO UPDATE
   SET amount_usd = excluded.amount_usd, is_final = excluded.is_final,
       ingested_at = excluded.ingested_at
 WHERE (kept.amount_usd, kept.is_final) IS DISTINCT FROM (excluded.amount_usd, excluded.is_final)
"""


def record_daily_costs(
    *, tenant_id: uuid.UUID, days: Sequence[DayAmount], ingested_at: datetime
) -> int:
    """Record what projects spent, replacing days that are known already, in one statement.

    :return: how many days are new or different.
    :raises ValueError: when a project's day occurs twice.
    :raises AmountError: when an amount is not finite or has more than 4 decimals.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    if len({(day.project_id, day.date) for day in days}) != len(days):
        raise ValueError("a project's day occurs twice")
    for day in days:
        exponent = day.amount_usd.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -MONTHLY_PLACES:
            raise AmountError(f"must be finite, with at most {MONTHLY_PLACES} decimals")
    if not days:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            _RECORD,
            {
                "tenant": tenant_id,
                "at": ingested_at,
                "projects": [day.project_id for day in days],
                "dates": [day.date for day in days],
                "amounts": [day.amount_usd for day in days],
                "finals": [day.is_final for day in days],
            },
        )
        written: int = cursor.rowcount
    return written
