"""Reads of budget alerts."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection
from datetime import date, datetime
from typing import Final

from django.db import connection

from billing.alerts.models import BudgetAlert

# One array instead of a parameter for each budget of a page: nothing to compile, one plan.
_OF_MONTH: Final = """
SELECT account_id, level_percent, raised_at FROM billing_budget_alert
 WHERE tenant_id = %s AND month = %s AND account_id = ANY(%s) ORDER BY level_percent
"""


def alerts_of(
    tenant_id: uuid.UUID, account_ids: Collection[uuid.UUID], *, month: date
) -> dict[uuid.UUID, dict[int, datetime]]:
    """Return for each budget the levels that it reached in a month, and when that was seen."""
    found: dict[uuid.UUID, dict[int, datetime]] = defaultdict(dict)
    with connection.cursor() as cursor:
        cursor.execute(_OF_MONTH, [tenant_id, month, list(account_ids)])
        for account_id, level, at in cursor.fetchall():
            found[account_id][level] = at
    return found


def find_alerts(
    tenant_id: uuid.UUID, *, after_id: uuid.UUID | None, limit: int
) -> list[BudgetAlert]:
    """Return up to ``limit`` alerts with their budgets, oldest first: for whoever tells people.

    :param after_id: the alert after which they start.
    """
    rows = BudgetAlert.objects.filter(tenant_id=tenant_id).select_related("account")
    if after_id is not None:
        rows = rows.filter(id__gt=after_id)
    return list(rows.order_by("id")[:limit])
