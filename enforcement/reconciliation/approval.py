"""Which decisions hold something that nobody has approved."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from governance.approvals.queries import find_ended, find_ungiven, is_any_ungiven


def is_any_unapproved(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> bool:
    """Tell whether one of these decisions asked for an approval that was not given.

    The approval may be its own or one that it joined.
    """
    return is_any_ungiven(tenant_id, _approvals_of(tenant_id, decision_ids).values())


def find_unapproved(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of these decisions that asked for an approval that was not given, oldest first."""
    approvals = _approvals_of(tenant_id, decision_ids)
    ungiven = find_ungiven(tenant_id, set(approvals.values()))
    return sorted(one for one, approval_id in approvals.items() if approval_id in ungiven)


def find_refused(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of these decisions whose approval ended without being given, oldest first."""
    approvals = _approvals_of(tenant_id, decision_ids)
    ended = find_ended(tenant_id, set(approvals.values()))
    return sorted(one for one, approval_id in approvals.items() if approval_id in ended)


def _approvals_of(
    tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, uuid.UUID]:
    rows = Decision.objects.filter(
        tenant_id=tenant_id,
        id__in=decision_ids,
        decision=REQUIRE_APPROVAL,
        approval_request_id__isnull=False,
    )
    return {
        decision_id: approval_id
        for decision_id, approval_id in rows.values_list("id", "approval_request_id")
        if approval_id is not None
    }
