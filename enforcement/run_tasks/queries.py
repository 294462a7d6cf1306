"""Reads of run tasks, and of the decisions that say what a plan costs."""

from __future__ import annotations

import uuid
from datetime import datetime

from enforcement.decisions.models import ALLOW, ALLOW_WITH_CREDITS, Decision
from enforcement.gate.inputs import Cost
from enforcement.gate.response import decode_response
from enforcement.run_tasks.models import DECIDED, RECEIVED, RunTask
from valdrix.kernel.db import transaction_required


def lock_next_due(tenant_id: uuid.UUID, now: datetime) -> RunTask | None:
    """Lock and return the call that has waited longest, past those that another worker holds."""
    transaction_required()
    rows = RunTask.objects.filter(
        tenant_id=tenant_id, state__in=(RECEIVED, DECIDED), due_at__lte=now
    )
    return rows.select_for_update(skip_locked=True).order_by("due_at", "pk").first()


def find_planned_digest(tenant_id: uuid.UUID, integration_id: uuid.UUID, run_id: str) -> str | None:
    """Return the digest of the plan that a run was decided on after planning, if it was."""
    return (
        RunTask.objects.filter(
            tenant_id=tenant_id,
            integration_id=integration_id,
            run_id=run_id,
            stage="post_plan",
            plan_digest__isnull=False,
        )
        .order_by("-pk")
        .values_list("plan_digest", flat=True)
        .first()
    )


def find_allowed_decisions(
    tenant_id: uuid.UUID, integration_id: uuid.UUID, run_id: str
) -> list[uuid.UUID]:
    """Return the decisions by which a run goes ahead, the newest first."""
    ids = RunTask.objects.filter(
        tenant_id=tenant_id, integration_id=integration_id, run_id=run_id
    ).values_list("decision_id", flat=True)
    rows = Decision.objects.filter(
        tenant_id=tenant_id, id__in=list(ids), decision__in=(ALLOW, ALLOW_WITH_CREDITS)
    )
    return list(rows.order_by("-id").values_list("id", flat=True))


def find_cost(
    tenant_id: uuid.UUID, *, project_id: str, plan_digest: str | None, run_id: str
) -> Cost | None:
    """Return what the newest decision says that a plan costs, or None.

    That is a decision of the project on the same plan, else an estimate that was posted for the
    run without a plan; one for another plan of the run says nothing.
    """
    priced = Decision.objects.filter(
        tenant_id=tenant_id,
        project_id=project_id,
        source="terraform",
        monthly_delta_usd__isnull=False,
    ).order_by("-id")
    row = None
    if plan_digest is not None:
        row = priced.filter(plan_digest=plan_digest).first()
    if row is None:
        row = priced.filter(run_id=run_id, plan_digest__isnull=True).first()
    if row is None:
        return None
    return Cost(
        monthly_delta_usd=row.monthly_delta_usd,
        hourly_delta_usd=row.hourly_delta_usd,
        state=row.cost_state,
        reasons=tuple(decode_response(row.response_json)["cost_state_reasons"]),
    )
