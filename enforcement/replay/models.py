"""The table of simulations."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

QUEUED = "queued"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
STATUSES = (QUEUED, RUNNING, DONE, FAILED)


class Simulation(models.Model):
    """A policy that is run on a span of history.

    ::

        queued ──> running ──> done | failed
                      └──> running   (its runner went silent; another took it)
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    status = models.CharField(max_length=10, default=QUEUED)
    document_json = models.TextField(help_text="The policy, in RFC 8785 form.")
    policy_sha256 = models.CharField(max_length=64)
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    requested_by = models.CharField(max_length=60, help_text="Principal id.")
    requested_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True, help_text="When its runner was last heard of.")
    finished_at = models.DateTimeField(null=True)
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    result_json = models.TextField(null=True)
    error = models.CharField(max_length=200, null=True)

    class Meta:
        db_table = "enforcement_simulation"
        constraints = (
            models.CheckConstraint(
                condition=Q(status__in=STATUSES), name="enforcement_simulation_status_is_known"
            ),
        )
        indexes = (
            models.Index(fields=["tenant_id", "-id"], name="enforcement_simulation_newest"),
            models.Index(
                fields=["tenant_id", "id"],
                condition=Q(status__in=(QUEUED, RUNNING)),
                name="enforcement_simulation_open",
            ),
        )

    def __str__(self) -> str:
        return f"simulation {self.id} ({self.status})"
