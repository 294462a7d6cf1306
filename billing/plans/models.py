"""The table of subscriptions."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.plans.domain import FREE, TIERS


class Subscription(models.Model):
    """The tier that a tenant is on; a tenant without a row is on the free tier."""

    tenant_id = models.UUIDField(primary_key=True)
    tier = models.CharField(max_length=12, default=FREE)
    since_at = models.DateTimeField()

    class Meta:
        db_table = "billing_subscription"
        constraints = (
            models.CheckConstraint(
                condition=Q(tier__in=TIERS), name="billing_subscription_tier_is_known"
            ),
        )

    def __str__(self) -> str:
        return self.tier
