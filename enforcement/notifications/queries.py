"""Reads of notices and deliveries, and the rows that a job claims."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from django.db.models import F

from billing.alerts.models import BudgetAlert
from enforcement.ledger import domain as ledger
from enforcement.ledger.models import LedgerEntry
from enforcement.notifications.models import PENDING, Delivery, Notice, NoticeCursor
from governance.approvals.models import PENDING as APPROVAL_PENDING
from governance.approvals.models import Approval
from valdrix.kernel.db import transaction_required

TOLD_EVENTS: Final = (
    ledger.APPROVAL_REQUESTED,
    ledger.APPROVAL_APPROVED,
    ledger.APPROVAL_DENIED,
    ledger.APPROVAL_WITHDRAWN,
    ledger.APPROVAL_EXPIRED,
)
_READ_AT_ONCE: Final = 500
_ALERTS_AT_ONCE: Final = 100
_ALERTS_UNTIL: Final = timedelta(days=3)


def lock_cursor(tenant_id: uuid.UUID, *, begin: int) -> NoticeCursor | None:
    """Lock how far the ledger was read; None while another job holds it.

    :param begin: where reading begins for a tenant that was never read.
    """
    transaction_required()
    NoticeCursor.objects.get_or_create(tenant_id=tenant_id, defaults={"sequence": begin})
    rows = NoticeCursor.objects.select_for_update(of=("self",), skip_locked=True)
    return rows.filter(tenant_id=tenant_id).first()


def find_told_entries(tenant_id: uuid.UUID, *, after: int) -> tuple[list[LedgerEntry], int]:
    """Return the next entries that are told, and the sequence that was read to."""
    rows = LedgerEntry.objects.filter(
        tenant_id=tenant_id, sequence__gt=after, sequence__lte=after + _READ_AT_ONCE
    ).order_by("sequence")
    read = list(rows.values_list("sequence", flat=True))
    if not read:
        return [], after
    told = rows.filter(event__in=TOLD_EVENTS, approval_request_id__isnull=False)
    return list(told.defer("canonical", "prev_hash", "entry_hash")), read[-1]


def find_untold_alerts(tenant_id: uuid.UUID, *, now: datetime) -> list[BudgetAlert]:
    """Return budget alerts of the last days without a notice, oldest first.

    They are found by what is missing, not by a cursor: ids of two processes may commit out of
    their order.
    """
    rows = BudgetAlert.objects.filter(tenant_id=tenant_id, raised_at__gt=now - _ALERTS_UNTIL)
    alerts = list(rows.select_related("account").order_by("id")[: _ALERTS_AT_ONCE * 10])
    keys = {f"alert:{one.pk}" for one in alerts}
    told = set(
        Notice.objects.filter(tenant_id=tenant_id, key__in=keys).values_list("key", flat=True)
    )
    return [one for one in alerts if f"alert:{one.pk}" not in told][:_ALERTS_AT_ONCE]


def find_unreminded(tenant_id: uuid.UUID, *, now: datetime) -> list[Approval]:
    """Return pending approvals that nobody was reminded of yet, those that end first."""
    rows = Approval.objects.filter(
        tenant_id=tenant_id,
        status=APPROVAL_PENDING,
        expires_at__gt=now,
        reminded_at__isnull=True,
    )
    return list(rows.order_by("expires_at", "pk")[:_READ_AT_ONCE])


def lock_due(tenant_id: uuid.UUID, *, now: datetime) -> Delivery | None:
    """Lock one delivery that is due, the one that waits longest; others' are skipped."""
    transaction_required()
    rows = Delivery.objects.select_for_update(of=("self",), skip_locked=True)
    return (
        rows.filter(tenant_id=tenant_id, state=PENDING, next_at__lte=now)
        .select_related("notice")
        .order_by(F("next_at").asc(), "pk")
        .first()
    )


def lock_delivery(tenant_id: uuid.UUID, delivery_id: uuid.UUID) -> Delivery | None:
    """Lock one delivery."""
    transaction_required()
    rows = Delivery.objects.select_for_update(of=("self",))
    return rows.filter(tenant_id=tenant_id, pk=delivery_id).first()


def count_dead(tenant_id: uuid.UUID, *, most: int) -> int:
    """Return how many deliveries were given up, up to a number."""
    return Delivery.objects.filter(tenant_id=tenant_id, state="dead")[:most].count()
