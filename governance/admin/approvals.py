"""The console's list of approvals, and the page of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import display
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from governance.approvals.models import (
    APPROVED,
    CONSUMED,
    DENIED,
    EXPIRED,
    PENDING,
    STATUSES,
    WITHDRAWN,
)
from governance.identity.domain import ADMIN, OWNER
from governance.models import Approval
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.admin import TenantModelAdmin, column_filter
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    INFO,
    NEUTRAL,
    NOTHING,
    WARN,
    Panel,
    badge,
    delta_usd,
    link,
    mono,
    utc,
    words,
)

_TONES: Final = {
    PENDING: WARN,
    APPROVED: GOOD,
    CONSUMED: INFO,
    DENIED: BAD,
    EXPIRED: NEUTRAL,
    WITHDRAWN: NEUTRAL,
}
_OUTCOMES: Final = {
    "matched": "matched: this rule says who reviews",
    "environment": "not for this environment",
    "action_prefix": "not for this action",
    "monthly_delta": "the change is too small for it",
    "risk_level": "not for this risk level",
    "after_match": "not looked at: an earlier rule had matched",
}


def status_badge(status: str) -> SafeString:
    """Return an approval's status as a badge."""
    return badge(status, _TONES.get(status, NEUTRAL))


def approval_rows(approval: Approval, *, with_link: bool) -> list[tuple[str, Any]]:
    """Return what an approval is about and who may give it.

    :param with_link: whether the person may open the approval's own page.
    """
    url = reverse("admin:governance_approval_change", args=[str(approval.id)])
    return [
        ("Status", status_badge(approval.status)),
        ("Approval id", link(url if with_link else None, str(approval.id))),
        ("Rule", approval.routing_rule_id or "none matched: the environment's own terms"),
        ("Needs", _needs(approval)),
        ("Requested by", mono(approval.requested_by)),
        ("Requested at", utc(approval.requested_at)),
        ("Expires at", utc(approval.expires_at)),
        ("Closed at", utc(approval.closed_at)),
    ]


def routing_steps(approval: Approval) -> list[tuple[str, str]]:
    """Return what became of each routing rule, in the policy's order."""
    steps = approval.routing_trace or ()
    return [
        (str(step.get("rule_id")), _OUTCOMES.get(step.get("outcome"), str(step.get("outcome"))))
        for step in steps
    ]


class ApprovalAdmin(TenantModelAdmin):
    """Who was asked to review what."""

    roles = (ADMIN, OWNER)
    empty_text = "No approval matches. A decision that needs a person opens one here."
    list_display = ("asked_at", "state", "subject", "delta", "rule", "needs", "ends")
    list_display_links = ("asked_at",)
    list_filter = (
        column_filter("status", "status", STATUSES, label=words),
        column_filter("environment", "environment", ENVIRONMENTS),
    )

    def get_page_title(self, row: Any) -> str:
        """Return the heading of an approval's page."""
        return f"Approval {str(row.id)[-12:]}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return the approval, its subject and its routing."""
        decision_url = reverse("admin:enforcement_decision_change", args=[str(row.decision_id)])
        digest = "computed" if row.change_is_computed else "declared"
        subject = [
            ("Decision", link(decision_url, str(row.decision_id))),
            ("Project", row.project_id),
            ("Environment", row.environment),
            ("Source", words(row.source)),
            ("Action", row.action),
            ("Monthly delta", f"{delta_usd(row.monthly_delta_usd)} USD"),
            ("Hourly delta", f"{delta_usd(row.hourly_delta_usd)} USD"),
            (f"Change ({digest})", mono(row.change_fingerprint)),
        ]
        trace = routing_steps(row)
        return [
            Panel("Approval", approval_rows(row, with_link=False)),
            Panel("What is to be approved", subject),
            Panel("Routing", trace, note="" if trace else "The policy had no routing rules."),
        ]

    @display(description="Requested")
    def asked_at(self, row: Approval) -> str:
        """Return when it was requested."""
        return utc(row.requested_at)

    @display(description="Status")
    def state(self, row: Approval) -> SafeString:
        """Return the status."""
        return status_badge(row.status)

    @display(description="Change")
    def subject(self, row: Approval) -> str:
        """Return the project, environment and action."""
        return f"{row.project_id} / {row.environment}: {row.action}"

    @display(description="USD a month")
    def delta(self, row: Approval) -> str:
        """Return the monthly delta."""
        return delta_usd(row.monthly_delta_usd)

    @display(description="Rule")
    def rule(self, row: Approval) -> str:
        """Return the routing rule that matched."""
        return row.routing_rule_id or NOTHING

    @display(description="Needs")
    def needs(self, row: Approval) -> str:
        """Return who must agree."""
        return _needs(row)

    @display(description="Expires")
    def ends(self, row: Approval) -> str:
        """Return when it expires."""
        return utc(row.expires_at)


def _needs(approval: Approval) -> str:
    text = f"{approval.required} of {', '.join(approval.reviewer_roles)}"
    if approval.reviewer_groups_all:
        text += f"; one of each of {', '.join(approval.reviewer_groups_all)}"
    return f"{text}; not the requester" if approval.separate_requester else text
