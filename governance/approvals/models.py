"""The table of approval requests."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

PENDING = "pending"
APPROVED = "approved"
DENIED = "denied"
EXPIRED = "expired"
WITHDRAWN = "withdrawn"
CONSUMED = "consumed"
STATUSES = (PENDING, APPROVED, DENIED, EXPIRED, WITHDRAWN, CONSUMED)


class Approval(models.Model):
    """A request for human review of one decision.

    ::

        pending ──> approved ──> consumed
           │            └──────> withdrawn | expired
           └──> denied | expired | withdrawn

    The routing rule and the trace of the others are kept as they were when it was opened.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    decision_id = models.UUIDField(unique=True)
    status = models.CharField(max_length=10, default=PENDING)
    source = models.CharField(max_length=20)
    project_id = models.CharField(max_length=200)
    environment = models.CharField(max_length=10)
    action = models.CharField(max_length=200)
    change_fingerprint = models.CharField(max_length=64)
    change_is_computed = models.BooleanField()
    monthly_delta_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    hourly_delta_usd = models.DecimalField(max_digits=19, decimal_places=6, null=True)
    requested_by = models.CharField(max_length=60, help_text="Principal id.")
    requester_person_id = models.BigIntegerField()
    routing_rule_id = models.CharField(max_length=200, null=True)
    routing_trace = models.JSONField(default=list)
    required = models.PositiveSmallIntegerField()
    reviewer_roles = ArrayField(models.CharField(max_length=10))
    reviewer_groups_all = ArrayField(models.CharField(max_length=200), default=list)
    separate_requester = models.BooleanField()
    requested_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "governance_approval"
        constraints = (
            models.CheckConstraint(
                condition=Q(status__in=STATUSES), name="governance_approval_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(required__gte=1), name="governance_approval_requires_somebody"
            ),
            models.UniqueConstraint(
                fields=["tenant_id", "source", "change_fingerprint"],
                condition=Q(status=PENDING, change_is_computed=True),
                name="governance_approval_one_pending_a_computed_change",
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "expires_at"],
                condition=Q(status=PENDING),
                name="governance_approval_pending",
            ),
        )

    def __str__(self) -> str:
        return f"approval {self.id} ({self.status})"
