"""The table of decisions."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

ALLOW = "ALLOW"
DENY = "DENY"
REQUIRE_APPROVAL = "REQUIRE_APPROVAL"
ALLOW_WITH_CREDITS = "ALLOW_WITH_CREDITS"
DECISIONS = (ALLOW, ALLOW_WITH_CREDITS, REQUIRE_APPROVAL, DENY)


class Decision(models.Model):
    """One evaluated gate request. Append-only, by trigger.

    ``context_json`` and ``outcome_json`` are the exact bytes that were computed from and to:
    replay runs the same pure function on the one and compares the other.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    created_at = models.DateTimeField()
    source = models.CharField(max_length=20)
    project_id = models.CharField(max_length=200)
    environment = models.CharField(max_length=10)
    action = models.CharField(max_length=200)
    resource_reference = models.CharField(max_length=2000)
    decision = models.CharField(max_length=20)
    would_have_been = models.CharField(max_length=20, null=True)
    mode = models.CharField(max_length=10)
    is_fail_safe = models.BooleanField(default=False)
    reason_codes = ArrayField(models.CharField(max_length=60))
    entitlement_reason_code = models.CharField(max_length=60, null=True)
    cost_state = models.CharField(max_length=10)
    monthly_delta_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    hourly_delta_usd = models.DecimalField(max_digits=19, decimal_places=6, null=True)
    request_fingerprint = models.CharField(max_length=64)
    change_fingerprint = models.CharField(max_length=64)
    plan_digest = models.CharField(
        max_length=64, null=True, help_text="The change digest, where Valdrix computed it."
    )
    idempotency_key = models.CharField(max_length=500, null=True)
    run_id = models.CharField(max_length=200, null=True)
    actor = models.CharField(max_length=60, help_text="Principal id.")
    person_id = models.BigIntegerField(help_text="The responsible person.")
    approval_request_id = models.UUIDField(null=True)
    policy_version = models.PositiveIntegerField()
    policy_document_schema_version = models.CharField(max_length=60)
    policy_document_sha256 = models.CharField(max_length=64)
    engine_version = models.CharField(max_length=40)
    context_json = models.TextField()
    outcome_json = models.TextField()
    outcome_sha256 = models.CharField(max_length=64)
    response_json = models.TextField()
    # Repeat what context_json and outcome_json hold, for exports: those are long and compressed.
    tags = ArrayField(models.TextField(), db_default=[])
    computed_context_version = models.CharField(max_length=20, null=True)
    computed_context_generated_at = models.DateTimeField(null=True)
    computed_context_month_start = models.DateField(null=True)
    computed_context_month_end = models.DateField(null=True)
    computed_context_month_elapsed_days = models.PositiveSmallIntegerField(null=True)
    computed_context_month_total_days = models.PositiveSmallIntegerField(null=True)
    computed_context_observed_cost_days = models.PositiveSmallIntegerField(null=True)
    computed_context_latest_cost_date = models.DateField(null=True)
    computed_context_data_source_mode = models.CharField(max_length=20, null=True)

    class Meta:
        db_table = "enforcement_decision"
        constraints = (
            models.CheckConstraint(
                condition=Q(decision__in=DECISIONS), name="enforcement_decision_is_known"
            ),
        )
        indexes = (
            models.Index(fields=["tenant_id", "-id"], name="enforcement_decision_newest"),
            models.Index(
                fields=["tenant_id", "project_id", "-id"], name="enforcement_decision_project"
            ),
            models.Index(
                fields=["tenant_id", "approval_request_id"],
                condition=Q(approval_request_id__isnull=False),
                name="enforcement_decision_waiting",
            ),
            models.Index(
                fields=["tenant_id", "plan_digest", "-id"],
                condition=Q(plan_digest__isnull=False),
                name="enforcement_decision_plan",
            ),
            models.Index(
                fields=["tenant_id", "run_id", "-id"],
                condition=Q(run_id__isnull=False),
                name="enforcement_decision_run",
            ),
        )

    def __str__(self) -> str:
        return f"{self.decision} {self.id}"
