"""Tables of reservations of metered use, and of each day's kept counts."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.quotas.domain import COMMITTED, METERS, RESERVED, STATES


class QuotaCount(models.Model):
    """What one holder (the tenant, a person, the system) holds and used of a meter in a UTC day."""

    tenant_id = models.UUIDField()
    meter = models.CharField(max_length=40)
    day = models.DateField()
    holder = models.CharField(max_length=40)
    reserved_units = models.BigIntegerField(default=0)
    used_units = models.BigIntegerField(default=0)

    class Meta:
        db_table = "billing_quota_count"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "meter", "day", "holder"], name="billing_quota_count_once"
            ),
            models.CheckConstraint(
                condition=Q(reserved_units__gte=0) & Q(used_units__gte=0),
                name="billing_quota_count_is_not_negative",
            ),
        )

    def __str__(self) -> str:
        return f"{self.meter} of {self.holder} on {self.day}"


class QuotaReservation(models.Model):
    """Metered use that was asked for: reserved → committed | released | expired → committed.

    What an expired one used after all is counted when it is committed: it was spent.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    meter = models.CharField(max_length=40)
    day = models.DateField()
    holder = models.CharField(max_length=40)
    principal_id = models.CharField(max_length=60)
    provider = models.CharField(max_length=40)
    units = models.BigIntegerField()
    used_units = models.BigIntegerField(null=True)
    state = models.CharField(max_length=10, default=RESERVED)
    reserved_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "billing_quota_reservation"
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=STATES) & Q(meter__in=METERS),
                name="billing_quota_reservation_is_known",
            ),
            models.CheckConstraint(
                condition=Q(units__gte=1)
                & (
                    Q(state=COMMITTED, used_units__gte=0)
                    | Q(used_units__isnull=True) & ~Q(state=COMMITTED)
                ),
                name="billing_quota_reservation_amounts_fit",
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "expires_at"],
                condition=Q(state=RESERVED),
                name="billing_quota_open",
            ),
        )

    def __str__(self) -> str:
        return f"{self.units} {self.meter} ({self.state})"
