"""Tables of notices, of their deliveries, and of how far the ledger was read for them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from enforcement.notifications.domain import CHANNELS, KINDS

PENDING = "pending"
SENT = "sent"
DEAD = "dead"
STATES = (PENDING, SENT, DEAD)


class NoticeCursor(models.Model):
    """The last ledger entry of a tenant that was spread into notices."""

    tenant_id = models.UUIDField(primary_key=True)
    sequence = models.BigIntegerField()

    class Meta:
        db_table = "enforcement_notice_cursor"

    def __str__(self) -> str:
        return f"read to {self.sequence}"


class Notice(models.Model):
    """Something that people are told once.

    :ivar key: what it tells, so that it is told once: ``ledger:7``, ``reminder:…``, ``alert:…``.
    :ivar subject_id: the approval or the budget.
    :ivar facts: what is said, as it was when it happened.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=30)
    key = models.CharField(max_length=80)
    subject_id = models.UUIDField()
    facts = models.JSONField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "enforcement_notice"
        constraints = (
            models.UniqueConstraint(fields=["tenant_id", "key"], name="enforcement_notice_once"),
            models.CheckConstraint(
                condition=Q(kind__in=KINDS), name="enforcement_notice_kind_is_known"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.subject_id}"


class Delivery(models.Model):
    """One notice to one address.

    ::

        pending ──> sent
           └──────> dead   (refused for good, or tried too often; it can be tried again)

    :ivar destination: an e-mail address, or an integration's id.
    :ivar next_at: not before; moved on while it is being sent, so that no other job takes it.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    notice = models.ForeignKey(Notice, on_delete=models.PROTECT, related_name="deliveries")
    channel = models.CharField(max_length=10)
    destination = models.CharField(max_length=320)
    state = models.CharField(max_length=10, default=PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField()
    last_error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "enforcement_delivery"
        verbose_name_plural = "deliveries"
        constraints = (
            models.UniqueConstraint(
                fields=["notice", "channel", "destination"], name="enforcement_delivery_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=STATES), name="enforcement_delivery_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(channel__in=CHANNELS), name="enforcement_delivery_channel_is_known"
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "next_at"],
                condition=Q(state=PENDING),
                name="enforcement_delivery_due",
            ),
            models.Index(fields=["tenant_id", "-id"], name="enforcement_delivery_newest"),
        )

    def __str__(self) -> str:
        return f"{self.channel} to {self.destination} ({self.state})"
