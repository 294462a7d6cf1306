"""Writes of quotas: reserve, commit, release; each a transaction of its own, under the counts' locks."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime

from billing.quotas.domain import (
    COMMITTED,
    EXPIRED,
    HELD_FOR,
    METERING_SUSPENDED,
    RELEASED,
    RESERVED,
    TENANT_HOLDER,
    Count,
    MeteredRequest,
    Quota,
    Refusal,
    day_of,
    find_refusal,
    find_shape_refusal,
)
from billing.quotas.models import QuotaCount, QuotaReservation
from billing.quotas.queries import find_overdue, get_reservation, lock_counts
from valdrix.kernel.db import transaction
from valdrix.kernel.problems import Refused

Counts = dict[tuple[date, str], QuotaCount]


class ReservationClosed(Refused):
    """The reservation was closed already, and in another way (409)."""

    code = "quota_reservation_closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who reserves, when, and under which new id."""

    tenant_id: uuid.UUID
    reservation_id: uuid.UUID
    principal_id: str
    at: datetime


def reserve(
    *, origin: Origin, wanted: MeteredRequest, quota: Quota, is_suspended: bool
) -> QuotaReservation | Refusal:
    """Hold what a request may need, or say why it is not served; a refusal holds nothing.

    :param quota: what the tenant's tier may use of the meter.
    :param is_suspended: whether metered use is switched off for everybody.
    """
    if is_suspended:
        detail = "Metered use is suspended for everybody; what is decided without it goes on."
        return Refusal(code=METERING_SUSPENDED, limit="everybody", detail=detail)
    refusal = find_shape_refusal(quota, wanted)
    if refusal is not None:
        return refusal
    day, (_, holder) = day_of(origin.at), wanted.holders
    with transaction(origin.tenant_id):
        overdue = find_overdue(origin.tenant_id, now=origin.at)
        mine = [row for row in overdue if row.meter == wanted.meter]
        days = {day, *(row.day for row in mine)}
        holders = {holder, *(row.holder for row in mine)}
        counts = lock_counts(origin.tenant_id, wanted.meter, days, holders)
        for row in mine:
            _expire(row, counts, at=origin.at)
        held = {one: _count(counts[day, one]) for one in wanted.holders}
        refusal = find_refusal(quota, wanted, held)
        if refusal is None:
            for one in wanted.holders:
                counts[day, one].reserved_units += wanted.units
            _save(counts)
            return QuotaReservation.objects.create(
                id=origin.reservation_id,
                tenant_id=origin.tenant_id,
                meter=wanted.meter,
                day=day,
                holder=holder,
                principal_id=origin.principal_id,
                provider=wanted.provider or quota.providers[0],
                units=wanted.units,
                reserved_at=origin.at,
                expires_at=origin.at + HELD_FOR,
            )
        _save(counts)
        return refusal


def commit(
    *, tenant_id: uuid.UUID, reservation_id: uuid.UUID, used_units: int, at: datetime
) -> QuotaReservation:
    """Count what was really used, also above what was held, and give the rest back.

    The same again is the same answer and changes nothing.

    :raises NotFound: when the tenant has no such reservation.
    :raises ReservationClosed: when it was released, or committed with another amount.
    """
    with transaction(tenant_id):
        row, counts = _lock(tenant_id, reservation_id)
        if row.state == COMMITTED and row.used_units == used_units:
            return row
        if row.state not in {RESERVED, EXPIRED}:
            raise ReservationClosed(f"The reservation is {row.state} already.")
        for one in (TENANT_HOLDER, row.holder):
            count = counts[row.day, one]
            count.reserved_units -= row.units if row.state == RESERVED else 0
            count.used_units += used_units
        row.used_units = used_units
        _close(row, COMMITTED, at=at)
        _save(counts)
        return row


def release(*, tenant_id: uuid.UUID, reservation_id: uuid.UUID, at: datetime) -> QuotaReservation:
    """Give back what was held and not used; what is released or expired already stays so.

    :raises NotFound: when the tenant has no such reservation.
    :raises ReservationClosed: when it was committed.
    """
    with transaction(tenant_id):
        row, counts = _lock(tenant_id, reservation_id)
        if row.state in {RELEASED, EXPIRED}:
            return row
        if row.state == COMMITTED:
            raise ReservationClosed("The reservation is committed already.")
        _give_back(row, counts)
        _close(row, RELEASED, at=at)
        _save(counts)
        return row


def _lock(tenant_id: uuid.UUID, reservation_id: uuid.UUID) -> tuple[QuotaReservation, Counts]:
    """Lock a reservation's counts, and read it again: whoever holds them may change it."""
    row = get_reservation(tenant_id, reservation_id)
    counts = lock_counts(tenant_id, row.meter, [row.day], [row.holder])
    row.refresh_from_db()
    return row, counts


def _expire(row: QuotaReservation, counts: Counts, *, at: datetime) -> None:
    """Give back what a reservation held whose time is over, unless somebody just closed it."""
    row.refresh_from_db()
    if row.state == RESERVED:
        _give_back(row, counts)
        _close(row, EXPIRED, at=at)


def _give_back(row: QuotaReservation, counts: Counts) -> None:
    for one in (TENANT_HOLDER, row.holder):
        counts[row.day, one].reserved_units -= row.units


def _close(row: QuotaReservation, state: str, *, at: datetime) -> None:
    row.state, row.closed_at = state, at
    row.save(update_fields=["state", "used_units", "closed_at"])


def _count(row: QuotaCount) -> Count:
    return Count(reserved_units=row.reserved_units, used_units=row.used_units)


def _save(counts: Counts) -> None:
    QuotaCount.objects.bulk_update(counts.values(), ["reserved_units", "used_units"])
