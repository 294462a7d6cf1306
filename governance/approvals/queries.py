"""Reads of approvals."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from governance.approvals.models import PENDING, Approval
from valdrix.kernel.db import transaction_required


def is_any_pending(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> bool:
    """Tell whether any of these decisions opened an approval that is still pending."""
    return Approval.objects.filter(
        tenant_id=tenant_id, decision_id__in=decision_ids, status=PENDING
    ).exists()


def lock_pending(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[Approval]:
    """Lock and return the pending approvals that these decisions opened, in primary-key order."""
    transaction_required()
    rows = Approval.objects.filter(
        tenant_id=tenant_id, decision_id__in=decision_ids, status=PENDING
    )
    return list(rows.order_by("pk").select_for_update(of=("self",)))
