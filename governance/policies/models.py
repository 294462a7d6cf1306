"""Tables of published policy versions and of modes forced in an emergency."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q


class PolicyVersion(models.Model):
    """One published policy document. Append-only, by trigger; the newest number is live."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    number = models.PositiveIntegerField()
    schema_version = models.CharField(max_length=60)
    canonical_json = models.TextField(help_text="The exact bytes that sha256 was taken of.")
    sha256 = models.CharField(max_length=64)
    author = models.CharField(max_length=60, help_text="Principal id.")
    comment = models.CharField(max_length=2000, blank=True)
    published_at = models.DateTimeField()

    class Meta:
        db_table = "governance_policy_version"
        ordering = ("-number",)
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "number"], name="governance_policy_version_number_once"
            ),
            models.CheckConstraint(
                condition=Q(number__gte=1), name="governance_policy_version_number_from_one"
            ),
        )

    def __str__(self) -> str:
        return f"policy version {self.number}"


class ForcedMode(models.Model):
    """A lower mode that an owner put in force at once, for at most 24 hours. Append-only."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    source = models.CharField(max_length=20)
    environment = models.CharField(max_length=10)
    mode = models.CharField(max_length=10)
    reason = models.CharField(max_length=2000)
    forced_by = models.CharField(max_length=60, help_text="Principal id.")
    forced_at = models.DateTimeField()
    until_at = models.DateTimeField()

    class Meta:
        db_table = "governance_forced_mode"
        constraints = (
            models.CheckConstraint(
                condition=Q(until_at__gt=F("forced_at")), name="governance_forced_mode_ends_later"
            ),
            models.CheckConstraint(
                condition=Q(mode__in=("shadow", "soft")), name="governance_forced_mode_is_lower"
            ),
        )
        indexes = (
            models.Index(fields=["tenant_id", "until_at"], name="governance_forced_mode_live"),
        )

    def __str__(self) -> str:
        return f"{self.source}/{self.environment} forced to {self.mode}"
