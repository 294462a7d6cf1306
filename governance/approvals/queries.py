"""Reads of approvals."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from governance.approvals.models import PENDING, Approval


def is_any_pending(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> bool:
    """Tell whether any of these decisions opened an approval that is still pending."""
    return Approval.objects.filter(
        tenant_id=tenant_id, decision_id__in=decision_ids, status=PENDING
    ).exists()
