"""Tables of charges, reservations and their lines."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.accounts.models import Account

ACTIVE = "active"
SETTLED = "settled"
RELEASED = "released"
STATES = (ACTIVE, SETTLED, RELEASED)

PENDING = "pending"
POSTED = "posted"
VOIDED = "voided"
LINE_STATES = (PENDING, POSTED, VOIDED)

ALLOCATION = "allocation"
RESERVED_CREDIT = "reserved_credit"
EMERGENCY_CREDIT = "emergency_credit"
EXPOSURE = "exposure"
OVERRUN = "overrun"
CREDIT_KINDS = (RESERVED_CREDIT, EMERGENCY_CREDIT)
LINE_KINDS = (ALLOCATION, RESERVED_CREDIT, EMERGENCY_CREDIT, EXPOSURE, OVERRUN)


class Charge(models.Model):
    """What one change holds, however many decisions asked about it.

    ::

        active ──> settled
           └─────> released   (its last member was released)

    :ivar family_id: the charge whose first decision was named as parent, or this one's own id;
        confirming or reconciling any member settles the whole family once.
    :ivar held_usd: what the change needs no new reservation for: own parts of its active members
        plus what they took of their parent.
    :ivar own_usd: own parts alone: only these can be taken by others, so that no part is passed on.
    :ivar taken_usd: what decisions that named this charge's decisions took of it, each part once.
    :ivar family_held_usd: on the family's first charge, the own parts of the whole family.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    family_id = models.UUIDField()
    is_shadow = models.BooleanField()
    state = models.CharField(max_length=10, default=ACTIVE)
    project_id = models.CharField(max_length=200)
    environment = models.CharField(max_length=10)
    action = models.CharField(max_length=200)
    resource_reference = models.CharField(max_length=2000)
    change_fingerprint = models.CharField(max_length=64)
    change_digest = models.CharField(max_length=200, null=True)
    change_is_computed = models.BooleanField()
    run_id = models.CharField(max_length=200, null=True)
    held_usd = models.DecimalField(max_digits=17, decimal_places=4)
    own_usd = models.DecimalField(max_digits=17, decimal_places=4)
    taken_usd = models.DecimalField(max_digits=17, decimal_places=4)
    family_held_usd = models.DecimalField(max_digits=17, decimal_places=4, default=0)
    opened_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "billing_charge"
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=STATES), name="billing_charge_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(held_usd__gte=0, held_usd__lt=10**13, taken_usd__gte=0)
                & Q(taken_usd__lt=10**13, family_held_usd__gte=0, family_held_usd__lt=10**13),
                name="billing_charge_is_not_negative",
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "change_fingerprint"],
                condition=Q(state=ACTIVE, change_is_computed=True),
                name="billing_charge_by_change",
            ),
            models.Index(
                fields=["tenant_id", "run_id"],
                condition=Q(state=ACTIVE, run_id__isnull=False),
                name="billing_charge_by_run",
            ),
            models.Index(fields=["tenant_id", "family_id"], name="billing_charge_family"),
        )

    def __str__(self) -> str:
        return f"charge {self.id} ({self.state})"


class Reservation(models.Model):
    """One decision's part of a charge: its own increase, and what it took of a parent.

    ::

        active ──> settled | released
    """

    decision_id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    charge = models.ForeignKey(Charge, on_delete=models.PROTECT, related_name="reservations")
    parent_charge = models.ForeignKey(
        Charge, on_delete=models.PROTECT, null=True, related_name="+", db_index=False
    )
    state = models.CharField(max_length=10, default=ACTIVE)
    own_usd = models.DecimalField(max_digits=17, decimal_places=4)
    taken_usd = models.DecimalField(max_digits=17, decimal_places=4)
    month = models.DateField(help_text="First day of the UTC month it was reserved in.")
    reserved_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="When the overdue job settles it.")

    class Meta:
        db_table = "billing_reservation"
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=STATES), name="billing_reservation_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(own_usd__gte=0, own_usd__lt=10**13)
                & Q(taken_usd__gte=0, taken_usd__lt=10**13),
                name="billing_reservation_is_not_negative",
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "due_at"],
                condition=Q(state=ACTIVE),
                name="billing_reservation_due",
            ),
            models.Index(
                fields=["charge"],
                condition=Q(state=ACTIVE) & (Q(own_usd__gt=0) | Q(taken_usd__gt=0)),
                name="billing_reservation_parts",
            ),
        )

    def __str__(self) -> str:
        return f"reservation of {self.decision_id} ({self.state})"


class ReservationLine(models.Model):
    """What one reservation holds of one account.

    ::

        pending ──> posted | voided   (exactly once)

    An overrun that an approval allowed is pending too, and counts in its account's month at once;
    one that a settlement found is written as posted, with an amount of 0.

    :ivar approval_request_id: the approval that allowed an overrun.
    """

    reservation = models.ForeignKey(Reservation, on_delete=models.PROTECT, related_name="lines")
    tenant_id = models.UUIDField()
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="lines")
    kind = models.CharField(max_length=20)
    is_shadow = models.BooleanField()
    state = models.CharField(max_length=10, default=PENDING)
    position = models.PositiveSmallIntegerField(help_text="Burn order within the reservation.")
    amount_usd = models.DecimalField(max_digits=17, decimal_places=4)
    posted_usd = models.DecimalField(max_digits=17, decimal_places=4, default=0)
    month = models.DateField(help_text="First day of the UTC month it posts to.")
    approval_request_id = models.UUIDField(null=True)

    class Meta:
        db_table = "billing_reservation_line"
        constraints = (
            models.CheckConstraint(
                condition=Q(approval_request_id__isnull=True)
                | Q(kind=OVERRUN, amount_usd__gt=0, is_shadow=False),
                name="billing_line_approved_is_an_overrun",
            ),
            models.UniqueConstraint(
                fields=["reservation", "position"], name="billing_line_position_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=LINE_STATES), name="billing_line_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=LINE_KINDS), name="billing_line_kind_is_known"
            ),
            models.CheckConstraint(
                condition=Q(amount_usd__gte=0, amount_usd__lt=10**13)
                # A saving posts below zero; everything else posts from zero up.
                & Q(posted_usd__gt=-(10**13), posted_usd__lt=10**13),
                name="billing_line_is_a_number",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_usd} ({self.state})"


MANUAL = "manual"
AUTO = "auto"
AUTO_RELEASE = "auto_release"
TRIGGERS = (MANUAL, AUTO, AUTO_RELEASE)


class SettlementRecord(models.Model):
    """One settled family: what was really spent against what was held. Append-only, by trigger.

    :ivar result_json: the first answer, which a repeated call with the same key gets again.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    family_id = models.UUIDField()
    decision_id = models.UUIDField(help_text="The member that was named.")
    project_id = models.CharField(max_length=200)
    environment = models.CharField(max_length=10)
    trigger = models.CharField(max_length=20)
    reserved_usd = models.DecimalField(max_digits=17, decimal_places=4)
    actual_usd = models.DecimalField(max_digits=17, decimal_places=4)
    posted_usd = models.DecimalField(max_digits=17, decimal_places=4)
    overrun_usd = models.DecimalField(max_digits=17, decimal_places=4)
    drift_usd = models.DecimalField(max_digits=17, decimal_places=4)
    exception_reason = models.CharField(max_length=40, null=True)
    idempotency_key = models.CharField(max_length=200, null=True)
    payload_sha256 = models.CharField(max_length=64, null=True)
    notes = models.CharField(max_length=2000, blank=True)
    settled_by = models.CharField(max_length=60, help_text="Principal id.")
    settled_at = models.DateTimeField()
    result_json = models.TextField()

    class Meta:
        db_table = "billing_settlement"
        constraints = (
            models.CheckConstraint(
                condition=Q(trigger__in=TRIGGERS), name="billing_settlement_trigger_is_known"
            ),
            models.UniqueConstraint(
                fields=["tenant_id", "family_id"], name="billing_settlement_once_a_family"
            ),
            models.UniqueConstraint(
                fields=["tenant_id", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="billing_settlement_key_once",
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "-id"],
                condition=Q(exception_reason__isnull=False),
                name="billing_settlement_exceptions",
            ),
        )

    def __str__(self) -> str:
        return f"settlement of {self.decision_id}"
