"""Which decisions hold something that nobody has approved, and what applying them spends."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Final

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.domain import EntryFacts
from governance.approvals.models import APPROVED, CONSUMED, GIVEN, Approval
from governance.approvals.queries import find_ended, find_ungiven, is_any_ungiven
from governance.approvals.state import end_approval, lock_approvals
from governance.audit.operations import Actor
from governance.tokens.operations import revoke_tokens
from valdrix.kernel.problems import Refused

TOKEN: Final = "approval_token"  # noqa: S105 - a subject's type


class ApprovalPending(Refused):
    """A decision of the family waits for its approval: nothing can have been applied (409)."""

    code = "approval_pending"


def lock_given(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[Approval]:
    """Lock the approvals of decisions that are about to count as applied.

    :raises ApprovalPending: when one of them was not given.
    """
    approvals = lock_approvals(tenant_id, find_approval_ids(tenant_id, decision_ids))
    check_given(approvals)
    return approvals


def find_approval_ids(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return the approvals that these decisions wait for or were given."""
    return set(_approvals_of(tenant_id, decision_ids).values())


def check_given(approvals: Collection[Approval]) -> None:
    """Check that all of some locked approvals were given.

    :raises ApprovalPending: when one of them was not.
    """
    if any(approval.status not in GIVEN for approval in approvals):
        raise ApprovalPending("The change waits for its approval; it cannot be applied yet.")


def spend_applied(actor: Actor, approvals: Collection[Approval]) -> list[EntryFacts]:
    """Spend locked approvals whose change was applied, and return the entries that say so.

    What was applied cannot be applied again: neither the approval nor a token of it.
    """
    facts = []
    for approval in approvals:
        if approval.status != APPROVED:
            continue
        end_approval(approval=approval, status=CONSUMED, at=actor.at)
        facts.append(approval_facts(actor, approval, event=ledger.APPROVAL_CONSUMED))
        facts.extend(revoke_facts(actor, approval, status=CONSUMED))
    return facts


def revoke_facts(actor: Actor, approval: Approval, *, status: str) -> list[EntryFacts]:
    """Revoke the live token of a locked approval, and return the entries that say so.

    :param status: the one that the approval is in afterwards.
    """
    revoked = revoke_tokens(
        tenant_id=actor.tenant_id,
        approval_id=approval.pk,
        by=actor.principal_id,
        at=actor.at,
    )
    return [
        approval_facts(actor, approval, event=ledger.TOKEN_REVOKED, status=status, jti=jti)
        for jti in revoked
    ]


def approval_facts(
    actor: Actor,
    approval: Approval,
    *,
    event: str,
    status: str = CONSUMED,
    jti: uuid.UUID | None = None,
) -> EntryFacts:
    """Return the entry of what became of an approval, or of a token of it."""
    return EntryFacts(
        event=event,
        at=actor.at,
        principal=actor.principal_id,
        source=approval.source,
        project_id=approval.project_id,
        environment=approval.environment,
        decision_id=approval.decision_id,
        approval_request_id=approval.pk,
        approval_status=status,
        subject_type=None if jti is None else TOKEN,
        subject_id=None if jti is None else str(jti),
        amount_usd=approval.max_monthly_delta_usd,
    )


def is_any_unapproved(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> bool:
    """Tell whether one of these decisions asked for an approval that was not given.

    The approval may be its own or one that it joined.
    """
    return is_any_ungiven(tenant_id, _approvals_of(tenant_id, decision_ids).values())


def find_unapproved(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of these decisions that asked for an approval that was not given, oldest first."""
    approvals = _approvals_of(tenant_id, decision_ids)
    ungiven = find_ungiven(tenant_id, set(approvals.values()))
    return sorted(one for one, approval_id in approvals.items() if approval_id in ungiven)


def find_refused(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of these decisions whose approval ended without being given, oldest first."""
    approvals = _approvals_of(tenant_id, decision_ids)
    ended = find_ended(tenant_id, set(approvals.values()))
    return sorted(one for one, approval_id in approvals.items() if approval_id in ended)


def _approvals_of(
    tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, uuid.UUID]:
    rows = Decision.objects.filter(
        tenant_id=tenant_id,
        id__in=decision_ids,
        decision=REQUIRE_APPROVAL,
        approval_request_id__isnull=False,
    )
    return {
        decision_id: approval_id
        for decision_id, approval_id in rows.values_list("id", "approval_request_id")
        if approval_id is not None
    }
