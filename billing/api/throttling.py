"""Throttles by plan: how often a tenant of each tier may call (SPEC 16)."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from billing.plans.domain import API_CALLS_PER_MINUTE, FREE
from governance.api.throttling import MINUTE_SECONDS, Throttle
from governance.identity.domain import Principal
from valdrix.kernel.throttling.windows import Limit


class TenantThrottle(Throttle):
    """Bounds a tenant's calls of everything but gates, by its tier or as the operator says."""

    def limits(self, principal: Principal) -> Sequence[tuple[str, Limit]]:
        """Return the tenant's own limit."""
        amount: int | None = settings.TENANT_API_PER_MINUTE
        if amount is None:
            amount = API_CALLS_PER_MINUTE[principal.plan or FREE]
        return (("tenant", Limit(f"api:{principal.tenant_id}", amount, MINUTE_SECONDS)),)
