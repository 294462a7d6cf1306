"""Reads that need more than one app's rows."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal

from billing.accounts.domain import month_of
from billing.costs.queries import spend_between


def month_to_date_spend(
    tenant_id: uuid.UUID, projects: Collection[str], *, now: datetime
) -> dict[str, Decimal]:
    """Return what projects really spent in the month of a moment so far, in US dollars.

    A project without ingested costs in that month is left out.
    """
    today = now.astimezone(UTC).date()
    return spend_between(tenant_id, projects, since=month_of(now), until=today)
