"""The table of ingested daily costs."""

from __future__ import annotations

from django.db import models


class DailyCost(models.Model):
    """What one project spent on one UTC day, in US dollars; below zero after credits."""

    tenant_id = models.UUIDField()
    project_id = models.CharField(max_length=200)
    date = models.DateField()
    amount_usd = models.DecimalField(max_digits=17, decimal_places=4)
    is_final = models.BooleanField()
    ingested_at = models.DateTimeField()

    class Meta:
        db_table = "billing_daily_cost"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "project_id", "date"], name="billing_daily_cost_once_a_day"
            ),
            models.CheckConstraint(
                condition=models.Q(amount_usd__gt=-(10**13), amount_usd__lt=10**13),
                name="billing_daily_cost_is_a_number",
            ),
        )

    def __str__(self) -> str:
        return f"{self.project_id} {self.date}: {self.amount_usd}"
