"""The use cases of denying and withdrawing: the approval ends, and its hold goes back (SPEC 5, 6).

The approval ends in one transaction; what it held is given back in the next ones, family by
family. What cannot go at once is found by the job that also ends what nobody gave in time, and
lets nothing through meanwhile.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from billing.reservations.families import find_family_id
from enforcement.ledger import domain as ledger
from enforcement.ledger.operations import append
from enforcement.reconciliation.approval import revoke_facts
from enforcement.reconciliation.expiry import release_refused
from enforcement.review.domain import Clock, Words
from enforcement.review.judging import (
    check_authority,
    check_shown,
    find_bench,
    require_project,
    require_scope,
    write_review,
)
from enforcement.review.queries import find_waiting
from enforcement.review.recording import Act
from governance.approvals.models import (
    APPROVED,
    DENIED,
    DENIES,
    PENDING,
    WITHDRAWN,
    Approval,
)
from governance.approvals.observing import observe_ended
from governance.approvals.state import check_status, end_approval, lock_approval, status_at
from governance.audit.operations import Actor
from governance.identity.domain import Principal
from valdrix.kernel.db import reading, transaction


def deny(
    *, principal: Principal, approval_id: uuid.UUID, words: Words, clock: Clock
) -> dict[str, Any]:
    """Deny a pending approval, for which one person is enough, and give its hold back.

    :raises NotFound: no such approval.
    :raises NotAllowed: the person, or the credential, may not judge this.
    :raises ApprovalNotOpen: it does not wait any more.
    :raises StaleApproval: it is not what the person was shown.
    :raises ReasonRequired: without a reason.
    """
    require_scope(principal)
    with transaction(principal.tenant_id):
        approval = lock_approval(principal.tenant_id, approval_id)
        now = clock()
        require_project(principal, approval)
        bench = find_bench(principal, approval)
        check_authority(bench)
        check_status(approval, PENDING, at=now)
        check_shown(words, approval)
        words.require_reason("a denial")
        act = Act(principal, approval, words, now)
        write_review(act, bench, verdict=DENIES)
        end_approval(approval=approval, status=DENIED, at=now)
        append(tenant_id=approval.tenant_id, facts=[act.facts(ledger.APPROVAL_DENIED, DENIED)])
    observe_ended(approval, ending=DENIED, at=now)
    _give_back(principal, approval, clock, trigger="denied")
    return {
        "status": DENIED,
        "approvals_given": len(bench.given),
        "approvals_required": bench.terms.needed,
    }


def withdraw(
    *, principal: Principal, approval_id: uuid.UUID, words: Words, clock: Clock
) -> dict[str, Any]:
    """Withdraw an approval that waits, or that was given and is not spent, and give its hold back.

    Whoever asked for the change may, and whoever may judge it.

    :raises NotFound: no such approval.
    :raises NotAllowed: the person neither asked for it nor may judge it.
    :raises ApprovalNotOpen: it has ended or was spent.
    :raises StaleApproval: it is not what the person was shown.
    """
    with transaction(principal.tenant_id):
        approval = lock_approval(principal.tenant_id, approval_id)
        now = clock()
        require_project(principal, approval)
        bench = find_bench(principal, approval)
        if principal.person_id not in bench.terms.requesters:
            require_scope(principal)
            check_authority(bench)
        status = status_at(approval, now)
        check_status(approval, APPROVED if status == APPROVED else PENDING, at=now)
        check_shown(words, approval)
        end_approval(approval=approval, status=WITHDRAWN, at=now)
        act = Act(principal, approval, words, now)
        revoked = revoke_facts(_actor(principal, now), approval, status=WITHDRAWN)
        append(
            tenant_id=approval.tenant_id,
            facts=[act.facts(ledger.APPROVAL_WITHDRAWN, WITHDRAWN), *revoked],
        )
    observe_ended(approval, ending=WITHDRAWN, at=now)
    _give_back(principal, approval, clock, trigger="withdrawn")
    return {
        "status": WITHDRAWN,
        "approvals_given": len(bench.given),
        "approvals_required": bench.terms.needed,
    }


def _give_back(principal: Principal, approval: Approval, clock: Clock, *, trigger: str) -> None:
    """Release what the decisions of an ended approval hold, a family at a time."""
    actor = _actor(principal, clock())
    with reading(principal.tenant_id):
        found = {
            find_family_id(principal.tenant_id, decision.pk) for decision in find_waiting(approval)
        }
    for family_id in sorted(one for one in found if one is not None):
        release_refused(actor=actor, family_id=family_id, trigger=trigger, skip_locked=False)


def _actor(principal: Principal, at: datetime) -> Actor:
    return Actor(
        tenant_id=principal.tenant_id, principal_id=principal.principal_id, address=None, at=at
    )
