"""Reads of plans."""

from __future__ import annotations

import uuid

from billing.plans.domain import FREE
from billing.plans.models import Subscription


def find_tier(tenant_id: uuid.UUID) -> str:
    """Return the tier that a tenant is on; without a subscription it is the free one."""
    row = Subscription.objects.filter(tenant_id=tenant_id).first()
    return row.tier if row else FREE
