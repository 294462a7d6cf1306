"""Reads of approvals."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from django.db import connection

from governance.approvals.models import APPROVED, CONSUMED, OPEN, PENDING, Approval
from valdrix.kernel.db import transaction_required


def is_any_ungiven(tenant_id: uuid.UUID, approval_ids: Collection[uuid.UUID]) -> bool:
    """Tell whether any of these approvals was not given: pending, denied, expired or withdrawn."""
    rows = Approval.objects.filter(tenant_id=tenant_id, id__in=approval_ids)
    return rows.exclude(status__in=(APPROVED, CONSUMED)).exists()


def find_ungiven(tenant_id: uuid.UUID, approval_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of these approvals were not given: pending, denied, expired or withdrawn."""
    rows = Approval.objects.filter(tenant_id=tenant_id, id__in=approval_ids)
    return set(rows.exclude(status__in=(APPROVED, CONSUMED)).values_list("id", flat=True))


def find_ended(tenant_id: uuid.UUID, approval_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of these approvals ended without being given."""
    rows = Approval.objects.filter(tenant_id=tenant_id, id__in=approval_ids)
    return set(rows.exclude(status__in=(APPROVED, CONSUMED, PENDING)).values_list("id", flat=True))


def lock_open(tenant_id: uuid.UUID, approval_id: uuid.UUID) -> Approval | None:
    """Lock and return an approval if it is still pending, or given and not spent."""
    transaction_required()
    rows = Approval.objects.filter(tenant_id=tenant_id, id=approval_id, status__in=OPEN)
    return rows.select_for_update(of=("self",)).first()


def count_pending_of_all_tenants() -> int:
    """Return how many pending approvals there are over all tenants: a number for operators, no rows."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT governance_pending_approvals()")
        return int(cursor.fetchone()[0])
