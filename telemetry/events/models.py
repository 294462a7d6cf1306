"""The tables of events and of the switch."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import LessThanOrEqual

from telemetry.events.domain import MOST_PAYLOAD_BYTES


class Event(models.Model):
    """One thing that was observed. No row of truth points here, and none is pointed at.

    ``attributes`` is JSON as text: a corrupt one then is a row to skip, not a query that fails.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=40)
    at = models.DateTimeField()
    outcome = models.CharField(max_length=40)
    source = models.CharField(max_length=40, null=True)
    environment = models.CharField(max_length=40, null=True)
    duration_ms = models.BigIntegerField(null=True)
    amount_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    attributes = models.TextField(default="{}")

    class Meta:
        db_table = "telemetry_event"
        constraints = (
            models.CheckConstraint(
                condition=LessThanOrEqual(Length("attributes"), MOST_PAYLOAD_BYTES),
                name="telemetry_event_is_small",
            ),
        )
        indexes = (
            models.Index(fields=["tenant_id", "kind", "at"], name="telemetry_event_window"),
            models.Index(fields=["tenant_id", "at"], name="telemetry_event_age"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class Switch(models.Model):
    """The kill switch: one row, which every writer looks at every few seconds."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    is_on = models.BooleanField(default=True)
    reason = models.CharField(max_length=200, default="")
    changed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "telemetry_switch"
        constraints = (
            models.CheckConstraint(condition=Q(id=1), name="telemetry_switch_is_one_row"),
        )

    def __str__(self) -> str:
        return "on" if self.is_on else "off"
