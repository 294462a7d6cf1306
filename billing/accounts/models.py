"""Tables of accounts and of their months."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.db.models import F, Q

from billing.accounts.domain import BASES, BUDGET, EXPOSURE, GRANT, KINDS, POOLS, RUN_RATE

_ZERO = Decimal(0)


def _amount() -> models.DecimalField[Decimal, Decimal]:
    return models.DecimalField(max_digits=17, decimal_places=4, default=_ZERO)


def _is_number(*names: str) -> Q:
    """Return the condition that none of the columns is below zero or NaN, which SQL sorts last."""
    condition = Q()
    for name in names:
        condition &= Q(**{f"{name}__gte": 0}) & Q(**{f"{name}__lt": 10**13})
    return condition


class Account(models.Model):
    """A budget, a credit grant, or the tenant's exposure; what it is, is its ``kind``.

    One table, so that one statement locks everything a request can touch, in primary-key order.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=10)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=60, help_text="Principal id.")

    project_id = models.CharField(max_length=200, null=True, blank=True)
    environment = models.CharField(max_length=10, null=True, blank=True)
    team = models.CharField(max_length=200, null=True, blank=True)

    # What is held until settlement, whatever the month.
    pending_usd = _amount()
    shadow_pending_usd = _amount()

    # A budget's own.
    active = models.BooleanField(default=True)
    basis = models.CharField(max_length=10, default=RUN_RATE)
    monthly_limit_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True, blank=True)

    # A grant's own: total = remaining + reserved + consumed.
    pool = models.CharField(max_length=10, null=True, blank=True)
    total_usd = _amount()
    remaining_usd = _amount()
    reserved_usd = _amount()
    consumed_usd = _amount()
    priority = models.PositiveSmallIntegerField(default=100)
    expires_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=2000, blank=True)

    class Meta:
        db_table = "billing_account"
        constraints = (
            models.CheckConstraint(
                condition=Q(kind__in=KINDS), name="billing_account_kind_is_known"
            ),
            models.CheckConstraint(
                condition=_is_number(
                    "pending_usd",
                    "shadow_pending_usd",
                    "total_usd",
                    "remaining_usd",
                    "reserved_usd",
                    "consumed_usd",
                ),
                name="billing_account_amounts_are_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(total_usd=F("remaining_usd") + F("reserved_usd") + F("consumed_usd")),
                name="billing_account_grant_adds_up",
            ),
            models.CheckConstraint(
                condition=Q(
                    kind=BUDGET,
                    project_id__isnull=False,
                    monthly_limit_usd__isnull=False,
                    monthly_limit_usd__gte=0,
                    monthly_limit_usd__lt=10**13,
                    basis__in=BASES,
                    pool__isnull=True,
                    total_usd=0,
                )
                | Q(kind=GRANT, pool__in=POOLS, total_usd__gt=0, monthly_limit_usd__isnull=True)
                | Q(
                    kind=EXPOSURE,
                    project_id__isnull=True,
                    pool__isnull=True,
                    monthly_limit_usd__isnull=True,
                    total_usd=0,
                ),
                name="billing_account_shape_fits_its_kind",
            ),
            models.UniqueConstraint(
                fields=["tenant_id", "project_id", "environment", "team"],
                condition=Q(kind=BUDGET),
                nulls_distinct=False,
                name="billing_account_one_budget_a_scope",
            ),
            models.UniqueConstraint(
                fields=["tenant_id"],
                condition=Q(kind=EXPOSURE),
                name="billing_account_one_exposure_a_tenant",
            ),
        )
        indexes = (
            models.Index(fields=["tenant_id", "kind", "project_id"], name="billing_account_scope"),
            models.Index(fields=["tenant_id", "kind", "id"], name="billing_account_page"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class AccountMonth(models.Model):
    """An account's settled totals of one UTC month."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="months")
    tenant_id = models.UUIDField()
    month = models.DateField(help_text="The month's first day.")
    posted_usd = _amount()
    overrun_usd = _amount()
    shadow_posted_usd = _amount()

    class Meta:
        db_table = "billing_account_month"
        constraints = (
            models.UniqueConstraint(fields=["account", "month"], name="billing_account_month_once"),
            models.CheckConstraint(
                condition=_is_number("posted_usd", "overrun_usd", "shadow_posted_usd"),
                name="billing_account_month_is_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(month__day=1), name="billing_account_month_is_a_first_day"
            ),
        )

    def __str__(self) -> str:
        return f"{self.account_id} {self.month:%Y-%m}"
