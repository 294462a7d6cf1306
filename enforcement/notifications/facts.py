"""What a notice keeps about an approval or a budget, as it was when it happened."""

from __future__ import annotations

from typing import Any

import orjson

from billing.alerts.models import BudgetAlert
from enforcement.decisions.models import Decision
from governance.approvals.models import DENIES, Approval, Review
from governance.identity.queries import find_membership
from valdrix.kernel.money import to_text


def approval_facts(approval: Approval, decision: Decision | None) -> dict[str, Any]:
    """Return what is said about an approval."""
    computed: dict[str, Any] = {}
    if decision is not None:
        computed = orjson.loads(decision.response_json).get("computed_context") or {}
    member = find_membership(approval.tenant_id, approval.requester_person_id)
    denial = Review.objects.filter(approval=approval, verdict=DENIES).order_by("-pk").first()
    amount = approval.monthly_delta_usd
    return {
        "approval_id": str(approval.pk),
        "decision_id": str(approval.decision_id),
        "status": approval.status,
        "project_id": approval.project_id,
        "environment": approval.environment,
        "action": approval.action,
        "resource_reference": decision.resource_reference if decision else "",
        "monthly_delta_usd": None if amount is None else to_text(amount),
        "risk_class": computed.get("risk_class"),
        "requester": member.user.get_username() if member else "somebody who left",
        "reason": denial.reason if denial else approval.request_reason,
        "expires_at": approval.expires_at.isoformat(timespec="seconds"),
    }


def budget_facts(alert: BudgetAlert) -> dict[str, Any]:
    """Return what is said about a budget alert."""
    account = alert.account
    scope = " / ".join(part for part in (account.environment, account.team) if part)
    return {
        "alert_id": str(alert.pk),
        "budget_id": str(account.pk),
        "project_id": account.project_id,
        "scope": scope or "every environment and team",
        "level_percent": alert.level_percent,
        "used_usd": to_text(alert.used_usd),
        "limit_usd": to_text(alert.limit_usd),
        "month": f"{alert.month:%Y-%m}",
    }
