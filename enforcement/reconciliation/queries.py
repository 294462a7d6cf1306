"""Reads of reservations and of what was settled, for people."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from billing.reservations.models import Reservation, SettlementRecord
from valdrix.kernel.db import reading
from valdrix.kernel.money import to_text


def find_active(
    tenant_id: uuid.UUID,
    *,
    projects: Collection[str] | None,
    after_id: uuid.UUID | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return up to ``limit`` active reservations, oldest decision first."""
    rows = Reservation.objects.filter(tenant_id=tenant_id, state="active")
    if projects is not None:
        rows = rows.filter(charge__project_id__in=projects)
    if after_id is not None:
        rows = rows.filter(decision_id__gt=after_id)
    with reading(tenant_id):
        found = rows.select_related("charge").prefetch_related("lines").order_by("decision_id")
        return [_show_reservation(row) for row in found[:limit]]


def find_exceptions(
    tenant_id: uuid.UUID,
    *,
    projects: Collection[str] | None,
    before_id: uuid.UUID | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return up to ``limit`` settlements that need a person's look, newest first."""
    rows = SettlementRecord.objects.filter(tenant_id=tenant_id, exception_reason__isnull=False)
    if projects is not None:
        rows = rows.filter(project_id__in=projects)
    if before_id is not None:
        rows = rows.filter(id__lt=before_id)
    with reading(tenant_id):
        return [_show_settlement(row) for row in rows.order_by("-id")[:limit]]


def _show_reservation(row: Reservation) -> dict[str, Any]:
    charge = row.charge
    return {
        "decision_id": str(row.decision_id),
        "family_id": str(charge.family_id),
        "project_id": charge.project_id,
        "environment": charge.environment,
        "is_shadow": charge.is_shadow,
        "own_usd": to_text(row.own_usd),
        "taken_usd": to_text(row.taken_usd),
        "reserved_at": row.reserved_at.isoformat(),
        "due_at": row.due_at.isoformat(),
        "confirmed_at": charge.confirmed_at.isoformat() if charge.confirmed_at else None,
        "lines": [
            {
                "account_id": str(line.account_id),
                "kind": line.kind,
                "amount_usd": to_text(line.amount_usd),
                "state": line.state,
            }
            for line in sorted(row.lines.all(), key=lambda line: line.position)
        ],
    }


def _show_settlement(row: SettlementRecord) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "decision_id": str(row.decision_id),
        "project_id": row.project_id,
        "environment": row.environment,
        "trigger": row.trigger,
        "reserved_usd": to_text(row.reserved_usd),
        "actual_monthly_delta_usd": to_text(row.actual_usd),
        "posted_usd": to_text(row.posted_usd),
        "overrun_usd": to_text(row.overrun_usd),
        "drift_usd": to_text(row.drift_usd),
        "exception_reason": row.exception_reason,
        "settled_by": row.settled_by,
        "settled_at": row.settled_at.isoformat(),
    }
