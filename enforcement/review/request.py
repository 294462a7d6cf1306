"""The use case of asking again for an approval that expired or was withdrawn (SPEC 6)."""

from __future__ import annotations

import uuid

from billing.reservations import families
from billing.reservations.approved import find_held
from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.operations import append
from enforcement.review.domain import Clock, Words
from enforcement.review.judging import require_project
from enforcement.review.recording import Act
from governance.approvals.models import EXPIRED, PENDING, WITHDRAWN, Approval
from governance.approvals.state import (
    ApprovalNotApplicable,
    lock_approval,
    reopen_approval,
    status_at,
)
from governance.identity.domain import Principal
from governance.policies.queries import read_live_policy
from valdrix.kernel.db import transaction
from valdrix.kernel.problems import NotAllowed, NotFound


class NotTheRequester(NotAllowed):
    """Only whoever asked for the change may (403)."""

    code = "not_the_requester"


def request_approval(
    *, principal: Principal, decision_id: uuid.UUID, reason: str, clock: Clock
) -> Approval:
    """Ask reviewers again about a decision whose approval expired or was withdrawn.

    :raises NotFound: no such decision.
    :raises NotAllowed: the credential is bound to other projects.
    :raises NotTheRequester: somebody else asked for the change.
    :raises ApprovalNotApplicable: the decision asks for none, or has an open one, or was denied,
        or what it held was given back, or the policy is another one by now: then the gate has to
        be asked anew.
    """
    with transaction(principal.tenant_id):
        decision = Decision.objects.filter(tenant_id=principal.tenant_id, pk=decision_id).first()
        if decision is None:
            raise NotFound("No such decision.")
        if decision.decision != REQUIRE_APPROVAL or decision.approval_request_id is None:
            raise ApprovalNotApplicable("The decision does not wait for an approval.")
        family_id = families.find_family_id(principal.tenant_id, decision_id)
        if family_id is not None:
            families.lock_family(principal.tenant_id, family_id)
        approval = lock_approval(principal.tenant_id, decision.approval_request_id)
        now = clock()
        require_project(principal, approval)
        if decision.person_id != principal.person_id:
            raise NotTheRequester("Only whoever asked for the change may ask its reviewers again.")
        if status_at(approval, now) not in {EXPIRED, WITHDRAWN} or approval.closed_at is None:
            raise ApprovalNotApplicable("Its approval is open, given or denied.")
        if read_live_policy(principal.tenant_id).version != decision.policy_version:
            # Its routing, and that it could be approved at all, are of a policy that is no more.
            raise ApprovalNotApplicable("The policy changed since; ask the gate again.")
        for waiting_id in {decision.pk, approval.decision_id}:
            held = find_held(principal.tenant_id, waiting_id)
            if held is not None and held.state != "active":
                raise ApprovalNotApplicable("What it held was given back; ask the gate again.")
        reopen_approval(approval=approval, reason=reason, at=now)
        act = Act(principal, approval, Words(reason=reason), now)
        append(tenant_id=principal.tenant_id, facts=[act.facts(ledger.APPROVAL_REQUESTED, PENDING)])
        approval.refresh_from_db()
    return approval
