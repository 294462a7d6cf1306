"""Reads of budget alerts."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection
from datetime import date, datetime

from billing.alerts.models import BudgetAlert


def alerts_of(
    tenant_id: uuid.UUID, account_ids: Collection[uuid.UUID], *, month: date
) -> dict[uuid.UUID, dict[int, datetime]]:
    """Return for each budget the levels that it reached in a month, and when that was seen."""
    found: dict[uuid.UUID, dict[int, datetime]] = defaultdict(dict)
    rows = BudgetAlert.objects.filter(
        tenant_id=tenant_id, account__in=account_ids, month=month
    ).order_by("level_percent")
    for account_id, level, at in rows.values_list("account_id", "level_percent", "raised_at"):
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
