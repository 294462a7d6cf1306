"""The console's list of approvals, and the page of one."""

from __future__ import annotations

from typing import Any, Final

from django.urls import reverse
from django.utils.safestring import SafeString

from governance.approvals.models import (
    APPROVED,
    CONSUMED,
    DENIED,
    EXPIRED,
    PENDING,
    WITHDRAWN,
)
from governance.models import Approval
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    INFO,
    NEUTRAL,
    WARN,
    badge,
    link,
    mono,
    utc,
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
        ("Needs", needs_of(approval)),
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


def needs_of(approval: Approval) -> str:
    """Return who must agree, in words."""
    text = f"{approval.required} of {', '.join(approval.reviewer_roles)}"
    if approval.reviewer_groups_all:
        text += f"; one of each of {', '.join(approval.reviewer_groups_all)}"
    return f"{text}; not the requester" if approval.separate_requester else text
