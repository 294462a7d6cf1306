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
GIVEN = (APPROVED, CONSUMED)
OPEN = (PENDING, APPROVED)

APPROVES = "approve"
DENIES = "deny"
VERDICTS = (APPROVES, DENIES)


class Approval(models.Model):
    """A request for human review of one decision.

    ::

        pending ──> approved ──> consumed
           │            └──────> withdrawn | expired
           └──> denied | expired | withdrawn

        expired | withdrawn ──> pending   (asked for again: the next round)

    The routing rule and the trace of the others are kept as they were when it was opened.

    :ivar ttl_seconds: how long it waits for its reviewers and, once given, for its use.
    :ivar round: reviews count in the round that they were given in.
    :ivar max_monthly_delta_usd: the ceiling that was approved; None until then.
    :ivar held_decision_id: the decision whose reservation holds the approved amount.
    :ivar consumed_by_decision_id: the decision that spent it without a token.
    :ivar consumed_run_id: the run of that decision, whose later stages it covers too.
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
    request_reason = models.CharField(max_length=2000, blank=True, db_default="")
    ttl_seconds = models.PositiveIntegerField(db_default=86_400)
    round = models.PositiveSmallIntegerField(db_default=1)
    expires_at = models.DateTimeField()
    reminded_at = models.DateTimeField(null=True)
    approved_at = models.DateTimeField(null=True)
    max_monthly_delta_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    max_hourly_delta_usd = models.DecimalField(max_digits=19, decimal_places=6, null=True)
    held_decision_id = models.UUIDField(null=True)
    consumed_by_decision_id = models.UUIDField(null=True)
    consumed_run_id = models.CharField(max_length=200, null=True)
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
            models.CheckConstraint(
                condition=~Q(status__in=GIVEN)
                | Q(
                    approved_at__isnull=False,
                    max_monthly_delta_usd__isnull=False,
                    held_decision_id__isnull=False,
                ),
                name="governance_approval_given_has_its_ceiling",
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
                condition=Q(status__in=OPEN),
                name="governance_approval_open",
            ),
            models.Index(
                fields=["tenant_id", "id"],
                condition=Q(status=PENDING),
                name="governance_approval_queue",
            ),
            models.Index(
                fields=["tenant_id", "change_fingerprint"],
                condition=Q(status__in=GIVEN, change_is_computed=True),
                name="governance_approval_given",
            ),
            models.Index(
                fields=["tenant_id", "requester_person_id", "-id"], name="governance_approval_mine"
            ),
        )

    def __str__(self) -> str:
        return f"approval {self.id} ({self.status})"


class Review(models.Model):
    """One person's verdict on an approval. Append-only, by trigger.

    It counts for the round it was given in and for the amount that the person saw: an amount
    that was raised afterwards has to be judged again.

    :ivar groups: the reviewer groups that the person was in at that moment.
    :ivar max_monthly_delta_usd: the ceiling that the person set where the cost is unknown.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    approval = models.ForeignKey(Approval, on_delete=models.PROTECT, related_name="reviews")
    round = models.PositiveSmallIntegerField()
    verdict = models.CharField(max_length=10)
    person_id = models.BigIntegerField()
    principal_id = models.CharField(max_length=60)
    groups = ArrayField(models.CharField(max_length=200), default=list)
    reason = models.CharField(max_length=2000, blank=True)
    monthly_delta_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    max_monthly_delta_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    reviewed_at = models.DateTimeField()

    class Meta:
        db_table = "governance_review"
        constraints = (
            models.CheckConstraint(
                condition=Q(verdict__in=VERDICTS), name="governance_review_verdict_is_known"
            ),
            models.UniqueConstraint(
                fields=["approval", "round", "person_id", "verdict", "monthly_delta_usd"],
                nulls_distinct=False,
                name="governance_review_once_a_person",
            ),
        )

    def __str__(self) -> str:
        return f"{self.verdict} by person {self.person_id}"
