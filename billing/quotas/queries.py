"""Reads of quotas, and the locks of their counts."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import date, datetime

from billing.quotas.domain import RESERVED, TENANT_HOLDER, Count
from billing.quotas.models import QuotaCount, QuotaReservation
from valdrix.kernel.db import transaction_required
from valdrix.kernel.problems import NotFound


def find_counts(tenant_id: uuid.UUID, meter: str, day: date) -> dict[str, Count]:
    """Return what of a day each holder holds and used; who used nothing is left out."""
    rows = QuotaCount.objects.filter(tenant_id=tenant_id, meter=meter, day=day)
    return {
        row.holder: Count(reserved_units=row.reserved_units, used_units=row.used_units)
        for row in rows.order_by("holder")
    }


def lock_counts(
    tenant_id: uuid.UUID, meter: str, days: Collection[date], holders: Collection[str]
) -> dict[tuple[date, str], QuotaCount]:
    """Lock counts of a tenant, by day and holder; those that are missing are made first.

    The tenant's own of a day is among them and is locked before the others of that day: whoever
    waits, waits there, so that no two can wait for one another.
    """
    transaction_required()
    wanted = {*holders, TENANT_HOLDER}
    QuotaCount.objects.bulk_create(
        [
            QuotaCount(tenant_id=tenant_id, meter=meter, day=day, holder=holder)
            for day in sorted(days)
            for holder in sorted(wanted)
        ],
        ignore_conflicts=True,
    )
    rows = QuotaCount.objects.filter(
        tenant_id=tenant_id, meter=meter, day__in=days, holder__in=wanted
    )
    firsts = rows.filter(holder=TENANT_HOLDER).order_by("day").select_for_update()
    found = {(row.day, row.holder): row for row in firsts}
    others = rows.exclude(holder=TENANT_HOLDER).order_by("day", "holder").select_for_update()
    return found | {(row.day, row.holder): row for row in others}


def get_reservation(tenant_id: uuid.UUID, reservation_id: uuid.UUID) -> QuotaReservation:
    """Return one reservation, unlocked: its day and holder never change.

    :raises NotFound: when the tenant has no such reservation.
    """
    row = QuotaReservation.objects.filter(tenant_id=tenant_id, pk=reservation_id).first()
    if row is None:
        raise NotFound
    return row


def find_overdue(tenant_id: uuid.UUID, *, now: datetime) -> list[QuotaReservation]:
    """Return reservations that nobody closed in time, oldest first; a bounded number at once."""
    rows = QuotaReservation.objects.filter(tenant_id=tenant_id, state=RESERVED, expires_at__lte=now)
    return list(rows.order_by("expires_at", "pk")[:200])
