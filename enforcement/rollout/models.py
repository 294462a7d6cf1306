"""The table of promotions."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

PROPOSED = "proposed"
SIGNED = "signed"
WITHDRAWN = "withdrawn"
STATES = (PROPOSED, SIGNED, WITHDRAWN)


class Promotion(models.Model):
    """One step up of one source and environment.

    ::

        proposed ──> signed   (and published with it)
            └──────> withdrawn

    :ivar figures_json: what was measured when it was proposed, and again when it was signed.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    source = models.CharField(max_length=20)
    environment = models.CharField(max_length=10)
    from_mode = models.CharField(max_length=10)
    to_mode = models.CharField(max_length=10)
    state = models.CharField(max_length=10, default=PROPOSED)
    figures_json = models.TextField()
    proposed_by = models.CharField(max_length=60, help_text="Principal id.")
    proposer_person_id = models.BigIntegerField()
    proposed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    signed_by = models.CharField(max_length=60, null=True, help_text="Principal id.")
    signer_person_id = models.BigIntegerField(null=True)
    signed_at = models.DateTimeField(null=True)
    policy_version = models.PositiveIntegerField(null=True)

    class Meta:
        db_table = "enforcement_promotion"
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=STATES), name="enforcement_promotion_state_is_known"
            ),
            models.CheckConstraint(
                condition=~Q(state=SIGNED)
                | (
                    Q(signer_person_id__isnull=False) & ~Q(signer_person_id=F("proposer_person_id"))
                ),
                name="enforcement_promotion_by_two_people",
            ),
            models.UniqueConstraint(
                fields=["tenant_id", "source", "environment"],
                condition=Q(state=PROPOSED),
                name="enforcement_promotion_one_proposed",
            ),
        )

    def __str__(self) -> str:
        return f"{self.source}.{self.environment} to {self.to_mode} ({self.state})"
