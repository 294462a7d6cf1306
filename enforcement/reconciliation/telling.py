"""What the ledger is told of decisions' holds: each entry names the approval that is about it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from enforcement.decisions.models import Decision
from enforcement.ledger.domain import EntryFacts
from governance.approvals.models import Approval
from governance.audit.operations import Actor


def build_entries(
    actor: Actor,
    event: str,
    decision_ids: Sequence[uuid.UUID],
    *,
    values: dict[uuid.UUID, dict[str, Any]] | None = None,
) -> list[EntryFacts]:
    """Return one entry a decision: where it belongs, and its approval as it is by now.

    :param decision_ids: in the order in which they are told.
    :param values: more members, by decision.
    """
    more = values or {}
    rows = Decision.objects.filter(tenant_id=actor.tenant_id, pk__in=decision_ids)
    decisions = rows.only("source", "project_id", "environment", "approval_request_id").in_bulk()
    wanted = [one.approval_request_id for one in decisions.values() if one.approval_request_id]
    statuses = dict(
        Approval.objects.filter(tenant_id=actor.tenant_id, pk__in=wanted).values_list(
            "pk", "status"
        )
        if wanted
        else ()
    )
    entries = []
    for decision_id in decision_ids:
        decision = decisions[decision_id]
        approval_id = decision.approval_request_id
        entries.append(
            EntryFacts(
                event=event,
                at=actor.at,
                principal=actor.principal_id,
                source=decision.source,
                project_id=decision.project_id,
                environment=decision.environment,
                decision_id=decision_id,
                approval_request_id=approval_id,
                approval_status=None if approval_id is None else statuses[approval_id],
                **more.get(decision_id, {}),
            )
        )
    return entries
