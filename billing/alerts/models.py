"""The table of budget alerts."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.accounts.models import Account
from billing.alerts.domain import LEVELS_PERCENT


class BudgetAlert(models.Model):
    """A budget reached a level of its limit in a month. Append-only, by trigger.

    What tells people about it reads these rows by id, which grows with time.

    :ivar used_usd: posted, pending and overrun when the level was seen to be reached.
    :ivar limit_usd: the budget's limit at that moment.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="alerts")
    project_id = models.CharField(max_length=200)
    month = models.DateField(help_text="The month's first day.")
    level_percent = models.PositiveSmallIntegerField()
    used_usd = models.DecimalField(max_digits=19, decimal_places=4)
    limit_usd = models.DecimalField(max_digits=17, decimal_places=4)
    raised_at = models.DateTimeField()

    class Meta:
        db_table = "billing_budget_alert"
        constraints = (
            models.UniqueConstraint(
                fields=["account", "month", "level_percent"], name="billing_budget_alert_once"
            ),
            models.CheckConstraint(
                condition=Q(level_percent__in=LEVELS_PERCENT),
                name="billing_budget_alert_level_is_known",
            ),
            models.CheckConstraint(
                condition=Q(used_usd__gt=0, used_usd__lt=10**14)
                & Q(limit_usd__gte=0, limit_usd__lt=10**13)
                & Q(used_usd__gte=F("limit_usd") * F("level_percent") / 100),
                name="billing_budget_alert_level_was_reached",
            ),
            models.CheckConstraint(
                condition=Q(month__day=1), name="billing_budget_alert_month_is_a_first_day"
            ),
        )
        indexes = (models.Index(fields=["tenant_id", "-id"], name="billing_budget_alert_newest"),)

    def __str__(self) -> str:
        return f"{self.account_id} {self.level_percent} % in {self.month:%Y-%m}"
