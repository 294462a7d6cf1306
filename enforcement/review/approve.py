"""The use case of approving: one person's yes, and with the last of them the hold (SPEC 3.6, 6)."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from billing.accounts.locking import GateLockContended
from billing.reservations.approved import keep_until
from enforcement.decisions.models import Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.domain import EntryFacts
from enforcement.ledger.operations import append
from enforcement.review.domain import (
    EMERGENCY_CREDITS,
    UNKNOWN_COST,
    Clock,
    Words,
    ceiling_of,
)
from enforcement.review.holding import Reserved, lock_for_approval, reserve_approved
from enforcement.review.judging import (
    Bench,
    check_authority,
    check_is_needed,
    check_shown,
    find_bench,
    require_project,
    require_scope,
    require_second_factor,
    write_review,
)
from enforcement.review.queries import find_waiting
from enforcement.review.reading import burns_emergency
from enforcement.review.recording import Act, lineage_of
from governance.approvals.authority import is_enough
from governance.approvals.models import APPROVED, APPROVES, PENDING, Approval
from governance.approvals.observing import observe_ended
from governance.approvals.state import (
    ApprovalNotApplicable,
    Given,
    check_status,
    get_approval,
    give_approval,
    lock_approval,
)
from governance.identity.domain import Principal
from governance.policies.queries import read_live_policy
from valdrix.kernel.db import transaction
from valdrix.kernel.money import to_text

_ATTEMPTS: Final = 3


class _SubjectMoved(Exception):
    """A larger question joined the approval while its locks were taken."""


def approve(
    *, principal: Principal, approval_id: uuid.UUID, words: Words, clock: Clock
) -> dict[str, Any]:
    """Record that a person approves; with the last one needed, reserve the change and give it.

    :param clock: read once more after the locks: waiting must not make a moment old.
    :return: ``status``, ``approvals_given``, ``approvals_required``, and the ceiling once given.
    :raises NotFound: no such approval.
    :raises NotAllowed: the person, or the credential, may not approve this.
    :raises ApprovalNotOpen: it does not wait any more.
    :raises StaleApproval: it is not what the person was shown.
    :raises AlreadyReviewed: the person has approved it before.
    :raises ReasonRequired: for emergency credits or an unknown cost, without a reason.
    :raises CeilingRequired: for an unknown cost, without ``max_monthly_delta_usd``.
    :raises CeilingExceeded: when a ceiling that an approval does not lift would be passed.
    """
    require_scope(principal)
    for _ in range(_ATTEMPTS):
        try:
            with transaction(principal.tenant_id):
                shown, act = _approve(principal, approval_id, words, clock)
        except _SubjectMoved:
            continue
        if shown["status"] == APPROVED:
            observe_ended(act.approval, ending=APPROVED, at=act.at)
        return shown
    raise GateLockContended("The approval is being joined; try again.")


def _approve(
    principal: Principal, approval_id: uuid.UUID, words: Words, clock: Clock
) -> tuple[dict[str, Any], Act]:
    approval = get_approval(principal.tenant_id, approval_id)
    require_project(principal, approval)
    # Before the money's locks are taken: most refusals need none of them.
    check_authority(find_bench(principal, approval))
    check_status(approval, PENDING, at=clock())
    locked = lock_for_approval(_subject_of(approval), now=clock())
    approval = lock_approval(principal.tenant_id, approval_id)
    now = clock()
    check_status(approval, PENDING, at=now)
    check_shown(words, approval)
    if _subject_of(approval).pk != locked.decision.pk:
        raise _SubjectMoved
    bench = find_bench(principal, approval)
    check_authority(bench)
    check_is_needed(bench)
    require_second_factor(principal, approval)
    _check_words(words, approval, locked.decision)
    act = Act(principal, approval, words, now)
    review = write_review(act, bench, verdict=APPROVES)
    given = [*bench.given, bench.reviewer]
    if not is_enough(bench.terms, given):
        append(tenant_id=approval.tenant_id, facts=[act.facts(ledger.APPROVAL_GIVEN, PENDING)])
        return _show(PENDING, len(given), bench), act
    monthly, hourly = ceiling_of(
        monthly_usd=approval.monthly_delta_usd,
        hourly_usd=approval.hourly_delta_usd,
        named=[one.max_monthly_delta_usd for one in [*_counting(bench), review]],
    )
    reserved = reserve_approved(locked, approval_id=approval.pk, ceiling_usd=monthly, at=now)
    if reserved.fall.emergency_credit_usd > 0:
        words.require_reason(EMERGENCY_CREDITS)
    given_values = Given(
        max_monthly_delta_usd=monthly,
        max_hourly_delta_usd=hourly,
        held_decision_id=locked.decision.pk,
    )
    give_approval(approval=approval, given=given_values, at=now)
    keep_until(
        tenant_id=approval.tenant_id,
        decision_ids=[decision.pk for decision in find_waiting(approval)],
        # What was approved is held for as long as it may be spent.
        at=now + timedelta(seconds=approval.ttl_seconds),
    )
    append(tenant_id=approval.tenant_id, facts=_entries(act, locked.decision.pk, reserved, monthly))
    shown = _show(APPROVED, len(given), bench)
    return {**shown, "max_monthly_delta_usd": to_text(monthly)}, act


def _subject_of(approval: Approval) -> Decision:
    """Return the decision that sets what is to be approved.

    :raises ApprovalNotApplicable: when no decision waits for it.
    """
    waiting = find_waiting(approval)
    if not waiting:
        raise ApprovalNotApplicable("No decision waits for this approval.")
    return waiting[0]


def _counting(bench: Bench) -> list[Any]:
    people = {reviewer.person_id for reviewer in bench.given}
    return [review for review in bench.reviews if review.person_id in people]


def _check_words(words: Words, approval: Approval, decision: Decision) -> None:
    """Check that a reason and a ceiling are given where they must be."""
    words.check_ceiling(approval.monthly_delta_usd)
    if approval.monthly_delta_usd is None:
        words.require_reason(UNKNOWN_COST)
    if burns_emergency(decision):
        words.require_reason(EMERGENCY_CREDITS)


def _entries(
    act: Act, decision_id: uuid.UUID, reserved: Reserved, ceiling: Decimal
) -> list[EntryFacts]:
    """Return the entries of a given approval: that it was, what it holds, and the overrun."""
    fall, lineage = reserved.fall, lineage_of(read_live_policy(act.approval.tenant_id))
    entries = [act.facts(ledger.APPROVAL_APPROVED, APPROVED, amount_usd=ceiling, **lineage)]
    if reserved.is_new or reserved.covered_usd > 0:
        entries.append(
            act.facts(
                ledger.RESERVED,
                APPROVED,
                decision_id=decision_id,
                amount_usd=reserved.covered_usd,
                reserved_allocation_usd=fall.allocation_usd,
                reserved_reserved_credit_usd=fall.reserved_credit_usd,
                reserved_emergency_credit_usd=fall.emergency_credit_usd,
                **lineage,
            )
        )
    if reserved.overrun_usd > 0:
        entries.append(
            act.facts(
                ledger.OVERRUN_RESERVED,
                APPROVED,
                decision_id=decision_id,
                amount_usd=reserved.overrun_usd,
                **lineage,
            )
        )
    return entries


def _show(status: str, given: int, bench: Bench) -> dict[str, Any]:
    return {
        "status": status,
        "approvals_given": given,
        "approvals_required": bench.terms.needed,
    }
