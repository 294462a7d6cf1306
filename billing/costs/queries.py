"""Reads of daily costs."""

from __future__ import annotations

import uuid
from datetime import date

from django.db.models import Max

from billing.costs.models import DailyCost


def find_latest_cost_date(tenant_id: uuid.UUID, project_id: str) -> date | None:
    """Return the newest UTC day of which a project has a cost, or None."""
    rows = DailyCost.objects.filter(tenant_id=tenant_id, project_id=project_id)
    latest: date | None = rows.aggregate(latest=Max("date"))["latest"]
    return latest
