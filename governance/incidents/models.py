"""The table of incidents."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

OPEN = "open"
RESOLVED = "resolved"
STATES = (OPEN, RESOLVED)


class Incident(models.Model):
    """Something is wrong that no program may mend by itself.

    ::

        open ──> resolved

    One incident stays open for one kind and subject; what happens again is counted on it.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=60)
    subject = models.CharField(max_length=200)
    detail = models.TextField()
    state = models.CharField(max_length=10, default=OPEN)
    occurrences = models.PositiveIntegerField(default=1)
    opened_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "governance_incident"
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=STATES), name="governance_incident_state_is_known"
            ),
            models.UniqueConstraint(
                fields=["tenant_id", "kind", "subject"],
                condition=Q(state=OPEN),
                name="governance_incident_one_open",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} ({self.state})"
