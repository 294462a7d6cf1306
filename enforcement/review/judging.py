"""Whether a person may judge an approval now: authority, state and what they said before."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from enforcement.review.domain import Words
from enforcement.review.queries import (
    find_approvals_given,
    find_terms,
    keep_authorised,
)
from enforcement.review.recording import Act
from governance.approvals import authority
from governance.approvals.authority import Reviewer, Terms
from governance.approvals.models import Approval, Review
from governance.approvals.reviewers import find_people, find_reviewer
from governance.approvals.state import record_review
from governance.identity.domain import SCOPE_APPROVE, Principal
from governance.policies.queries import read_live_policy
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import to_text
from valdrix.kernel.problems import NotAllowed, Refused

_DETAILS: Final = {
    authority.ROLE_MISSING: "The rule that routed this asks for reviewers of another role.",
    authority.PERMISSION_MISSING: "You lack the permission to approve in this environment.",
    authority.GROUP_MISSING: "The rule asks for people of other groups.",
    authority.IS_REQUESTER: "You asked for this change; somebody else has to judge it.",
    authority.HELD_CREDENTIAL: "You were shown the credential that asked for this, and could have"
    " asked by it; somebody else has to judge it.",
}


class AlreadyReviewed(Refused):
    """The person has judged this already (409)."""

    code = "approval_already_reviewed"


class StaleApproval(Refused):
    """The approval is not what it was when the person was shown it (409); nothing was done."""

    code = "stale_approval"


class Bench(msgspec.Struct, frozen=True, eq=False):
    """Who judges one locked approval: whom it demands, and who has said yes so far.

    :ivar given: reviewers whose approval counts today.
    """

    terms: Terms
    reviewer: Reviewer
    reviews: list[Review]
    given: list[Reviewer]


def has_scope(principal: Principal) -> bool:
    """Tell whether the credential may review at all: a person's session, or the scope."""
    return principal.principal_id.startswith("user:") or SCOPE_APPROVE in principal.scopes


def require_scope(principal: Principal) -> None:
    """Refuse a machine's credential that may not review: only a person in the console needs no scope.

    :raises NotAllowed: with the code ``scope_missing``.
    """
    if not has_scope(principal):
        raise NotAllowed("This needs a credential with the scope approve.", code="scope_missing")


def require_project(principal: Principal, approval: Approval) -> None:
    """Refuse a credential that is bound to other projects.

    :raises NotAllowed: with the code ``project_not_allowed``.
    """
    if not principal.can_use_project(approval.project_id):
        raise NotAllowed("The credential is bound to other projects.", code="project_not_allowed")


def is_second_factor_missing(principal: Principal, approval: Approval) -> bool:
    """Tell whether the policy in force wants a second factor that the principal did not prove."""
    terms = read_live_policy(approval.tenant_id).policy.approval_terms(approval.environment)
    return terms.require_second_factor and not principal.has_second_factor


def require_second_factor(principal: Principal, approval: Approval) -> None:
    """Refuse to let somebody approve without the second factor that the policy wants.

    :raises NotAllowed: with the code ``second_factor_required``.
    """
    if is_second_factor_missing(principal, approval):
        raise NotAllowed(
            "The policy wants approvals here from a session with a second factor.",
            code="second_factor_required",
        )


def mark_of(approval: Approval) -> str:
    """Return the mark of what is to be judged: another amount, round or terms give another one."""
    monthly, hourly = approval.monthly_delta_usd, approval.hourly_delta_usd
    return _mark(
        (str(approval.pk), approval.round),
        (
            None if monthly is None else to_text(monthly),
            None if hourly is None else to_text(hourly),
        ),
        (approval.routing_rule_id, approval.required, approval.separate_requester),
        (tuple(approval.reviewer_roles), tuple(approval.reviewer_groups_all)),
    )


_Texts = tuple[str, ...]


@lru_cache(maxsize=4096)
def _mark(
    subject: tuple[str, int],
    amounts: tuple[str | None, str | None],
    terms: tuple[str | None, int, bool],
    reviewers: tuple[_Texts, _Texts],
) -> str:
    """Hash what is to be judged; who looks at a list of what waits looks at the same ones often."""
    return sha256_hex(
        {
            "approval_id": subject[0],
            "round": subject[1],
            "monthly_delta_usd": amounts[0],
            "hourly_delta_usd": amounts[1],
            "routing_rule_id": terms[0],
            "required": terms[1],
            "reviewer_roles": reviewers[0],
            "reviewer_groups_all": reviewers[1],
            "separate_requester": terms[2],
        }
    )


def check_shown(words: Words, approval: Approval) -> None:
    """Refuse a verdict on something else than the person was shown; the approval is locked.

    :raises StaleApproval: when the mark is another one now.
    """
    if words.shown is None or words.shown == mark_of(approval):
        return
    monthly = approval.monthly_delta_usd
    now = "an unknown amount" if monthly is None else f"{to_text(monthly)} USD a month"
    raise StaleApproval(
        f"This moved since it was shown: it is about {now} now. Look at it again before you decide."
    )


def find_bench(principal: Principal, approval: Approval) -> Bench:
    """Return who judges an approval, the principal's person among them."""
    return find_benches(principal, [approval])[approval.pk]


def find_benches(principal: Principal, approvals: Sequence[Approval]) -> dict[uuid.UUID, Bench]:
    """Return who judges each of some approvals, in a handful of statements."""
    tenant_id = principal.tenant_id
    terms = find_terms(tenant_id, approvals)
    reviews = find_approvals_given(tenant_id, approvals)
    voters = {review.person_id for given in reviews.values() for review in given}
    people = find_people(tenant_id, voters) if voters else {}
    reviewer = find_reviewer(principal)
    benches = {}
    for approval in approvals:
        given = reviews[approval.pk]
        benches[approval.pk] = Bench(
            terms=terms[approval.pk],
            reviewer=reviewer,
            reviews=given,
            given=keep_authorised(terms[approval.pk], given, people),
        )
    return benches


def may_approve(bench: Bench) -> bool:
    """Tell whether the principal's person may say yes, and is needed."""
    return (
        authority.find_refusal(bench.terms, bench.reviewer) is None
        and all(review.person_id != bench.reviewer.person_id for review in bench.reviews)
        and authority.is_needed(bench.terms, bench.given, bench.reviewer)
    )


def check_authority(bench: Bench) -> None:
    """Refuse a person who may not judge.

    :raises NotAllowed: with the code of what is missing.
    """
    refusal = authority.find_refusal(bench.terms, bench.reviewer)
    if refusal is not None:
        raise NotAllowed(_DETAILS[refusal], code=refusal)


def check_is_needed(bench: Bench) -> None:
    """Refuse an approval that is given twice, or that brings it no nearer.

    :raises AlreadyReviewed: when the person has said yes already.
    :raises NotAllowed: when only people of other groups are still missing.
    """
    if any(review.person_id == bench.reviewer.person_id for review in bench.reviews):
        raise AlreadyReviewed("You have approved this already; others have to as well.")
    if not authority.is_needed(bench.terms, bench.given, bench.reviewer):
        raise NotAllowed(
            _DETAILS[authority.GROUP_MISSING],
            code=authority.GROUP_MISSING,
        )


def write_review(act: Act, bench: Bench, *, verdict: str) -> Review:
    """Write a person's verdict on what they were shown, and return it."""
    principal, approval, words = act.principal, act.approval, act.words
    review = Review(
        id=new_id(),
        tenant_id=approval.tenant_id,
        approval=approval,
        round=approval.round,
        verdict=verdict,
        person_id=principal.person_id,
        principal_id=principal.principal_id,
        groups=sorted(bench.reviewer.groups),
        reason=words.reason,
        monthly_delta_usd=approval.monthly_delta_usd,
        max_monthly_delta_usd=words.max_monthly_delta_usd,
        reviewed_at=act.at,
    )
    record_review(review=review)
    return review
