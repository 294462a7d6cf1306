"""What people see of approvals: what they may act on, what they asked for, and one in full."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
import orjson
from django.db.models import Q

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.review.judging import Bench, find_benches, has_scope, may_approve
from enforcement.review.queries import find_eligible, find_waiting
from governance.approvals.authority import find_refusal
from governance.approvals.models import PENDING, Approval, Review
from governance.approvals.reviewers import Person
from governance.approvals.state import get_approval, status_at
from governance.identity.domain import ADMIN, Principal
from valdrix.kernel.problems import NotAllowed

_SHOWN_DECISIONS: Final = 50
_LARGE: Final = ("context_json", "outcome_json")
"""What was decided on, and how: no list shows it."""


class Seen(msgspec.Struct, frozen=True, eq=False):
    """One approval as one person sees it.

    :ivar status: at the moment of looking: one whose time is over is expired.
    :ivar may_approve: whether this person's yes is allowed and needed now.
    :ivar reason_required: whether a yes needs a reason in words.
    :ivar ceiling_required: whether a yes needs the amount that it goes up to.
    :ivar eligible: who may judge it; None in lists.
    :ivar waiting: the decisions that wait for it, the one that sets its amount first.
    """

    approval: Approval
    status: str
    bench: Bench
    may_approve: bool
    reason_required: bool
    ceiling_required: bool
    waiting: Sequence[Decision]
    eligible: Sequence[Person] | None
    reviews: Sequence[Review]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFilter:
    """Which approvals are wanted; None lets all pass.

    :ivar requester_person_id: those that this person asked for, by opening or by joining.
    """

    projects: frozenset[str] | None = None
    status: str | None = None
    requester_person_id: int | None = None
    before_id: uuid.UUID | None = None


def find_approvals(tenant_id: uuid.UUID, wanted: ApprovalFilter, *, limit: int) -> list[Approval]:
    """Return up to ``limit`` approvals, newest first."""
    rows = Approval.objects.filter(tenant_id=tenant_id)
    if wanted.projects is not None:
        rows = rows.filter(project_id__in=wanted.projects)
    if wanted.status is not None:
        rows = rows.filter(status=wanted.status)
    if wanted.requester_person_id is not None:
        joined = Decision.objects.filter(
            tenant_id=tenant_id,
            person_id=wanted.requester_person_id,
            decision=REQUIRE_APPROVAL,
            approval_request_id__isnull=False,
        ).values("approval_request_id")
        rows = rows.filter(Q(requester_person_id=wanted.requester_person_id) | Q(pk__in=joined))
    if wanted.before_id is not None:
        rows = rows.filter(pk__lt=wanted.before_id)
    return list(rows.order_by("-pk")[:limit])


def see_approval(principal: Principal, approval_id: uuid.UUID, *, now: datetime) -> Seen:
    """Return one approval in full.

    Whoever asked for it, whoever may or did judge it, and admins see it.

    :raises NotFound: when the tenant has no such approval.
    :raises NotAllowed: to others, and to credentials that are bound to other projects.
    """
    approval = get_approval(principal.tenant_id, approval_id)
    if not principal.can_use_project(approval.project_id):
        raise NotAllowed("The credential is bound to other projects.", code="project_not_allowed")
    seen = see_approvals(principal, [approval], now=now)[0]
    reviews = list(
        Review.objects.filter(tenant_id=principal.tenant_id, approval=approval).order_by("pk")
    )
    person_id = principal.person_id
    if not (
        principal.has_role(ADMIN)
        or person_id in seen.bench.terms.requesters
        or find_refusal(seen.bench.terms, seen.bench.reviewer) is None
        or any(review.person_id == person_id for review in reviews)
    ):
        raise NotAllowed("You neither asked for this nor may judge it.")
    return Seen(
        approval=seen.approval,
        status=seen.status,
        bench=seen.bench,
        may_approve=seen.may_approve,
        reason_required=seen.reason_required,
        ceiling_required=seen.ceiling_required,
        waiting=find_waiting(approval),
        eligible=find_eligible(principal.tenant_id, seen.bench.terms),
        reviews=reviews,
    )


def see_approvals(
    principal: Principal, approvals: Sequence[Approval], *, now: datetime
) -> list[Seen]:
    """Return approvals as one person sees them in a list."""
    benches = find_benches(principal, approvals)
    own = (
        Decision.objects.defer(*_LARGE)
        .filter(tenant_id=principal.tenant_id)
        .in_bulk([one.decision_id for one in approvals])
    )
    is_let_in = has_scope(principal)
    seen = []
    for approval in approvals:
        status = status_at(approval, now)
        decision, bench = own.get(approval.decision_id), benches[approval.pk]
        is_unknown = approval.monthly_delta_usd is None
        seen.append(
            Seen(
                approval=approval,
                status=status,
                bench=bench,
                may_approve=status == PENDING and is_let_in and may_approve(bench),
                reason_required=is_unknown or (decision is not None and burns_emergency(decision)),
                ceiling_required=is_unknown,
                waiting=() if decision is None else (decision,),
                eligible=None,
                reviews=(),
            )
        )
    return seen


def burns_emergency(decision: Decision) -> bool:
    """Tell whether a decision would be paid from emergency credits, which takes a reason."""
    burnt = orjson.loads(decision.response_json).get("reserved_emergency_credit_usd")
    return takes_emergency(Decimal(burnt or "0"), decision.reason_codes)


def takes_emergency(burnt_usd: Decimal | None, reason_codes: Sequence[str]) -> bool:
    """Tell whether a decision means emergency credits.

    :param burnt_usd: what of them it holds already, in US dollars.
    """
    return bool(burnt_usd) or "emergency_credits_require_approval" in reason_codes


def shown_decisions(seen: Seen) -> list[str]:
    """Return the ids of the decisions that wait, bounded."""
    return [str(decision.pk) for decision in seen.waiting[:_SHOWN_DECISIONS]]
