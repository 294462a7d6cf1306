"""Reads of decisions that the gate itself makes."""

from __future__ import annotations

import uuid

from enforcement.decisions.models import Decision


def find_response(tenant_id: uuid.UUID, decision_id: uuid.UUID) -> str | None:
    """Return the stored response of a decision, or None when there is no such decision."""
    return (
        Decision.objects.filter(tenant_id=tenant_id, id=decision_id)
        .values_list("response_json", flat=True)
        .first()
    )
