"""The use case of claiming: the requester of a given approval gets its one live token (SPEC 6)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from enforcement.decisions.models import Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.domain import EntryFacts
from enforcement.ledger.operations import append
from enforcement.reconciliation.approval import approval_facts, revoke_facts
from enforcement.review.domain import Clock
from enforcement.review.judging import require_project
from enforcement.review.queries import find_requesters_of
from enforcement.review.request import NotTheRequester
from governance.approvals.models import APPROVED, Approval
from governance.approvals.state import check_status, lock_approval
from governance.audit.operations import Actor
from governance.identity.domain import Principal
from governance.tokens.domain import AUDIENCE, TOKEN_TYPE
from governance.tokens.operations import find_live, issue_token
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import to_text


@dataclass(frozen=True, slots=True)
class Claimed:
    """A token's text, for the eyes of its requester only, and when it ends."""

    text: str
    expires_at: datetime


def claim_token(
    *, principal: Principal, approval_id: uuid.UUID, rotate: bool, issuer: str, clock: Clock
) -> Claimed:
    """Return the live token of a given approval: the same one again, until it is rotated.

    :param rotate: revoke the live one and issue another.
    :param issuer: the token's ``iss``.
    :raises NotFound: no such approval.
    :raises NotTheRequester: somebody else asked for the change; reviewers never get a token.
    :raises ApprovalNotOpen: it is not given, or spent, or over; the code says which.
    :raises TokenKeyMissing: when no key can sign.
    """
    with transaction(principal.tenant_id):
        approval = lock_approval(principal.tenant_id, approval_id)
        now = clock()
        require_project(principal, approval)
        requesters = find_requesters_of(principal.tenant_id, approval)
        if principal.person_id not in requesters:
            raise NotTheRequester("Only whoever asked for the change may claim its token.")
        check_status(approval, APPROVED, at=now)
        actor = Actor(
            tenant_id=principal.tenant_id,
            principal_id=principal.principal_id,
            address=None,
            at=now,
        )
        live = None if rotate else find_live(approval, at=now)
        facts: list[EntryFacts] = []
        if live is None:
            facts.extend(revoke_facts(actor, approval, status=APPROVED))
            live = issue_token(
                approval=approval,
                claims=_build_claims(approval, issuer=issuer, at=now),
                issued_to=principal.principal_id,
                at=now,
            )
            issued = approval_facts(
                actor, approval, event=ledger.TOKEN_ISSUED, status=APPROVED, jti=live.row.jti
            )
            append(tenant_id=principal.tenant_id, facts=[*facts, issued])
    return Claimed(text=live.text, expires_at=live.row.expires_at)


def _build_claims(approval: Approval, *, issuer: str, at: datetime) -> dict[str, Any]:
    """Return all claims, in the order in which they are signed."""
    decision = Decision.objects.get(tenant_id=approval.tenant_id, pk=approval.decision_id)
    issued_at = int(at.timestamp())
    hourly = approval.max_hourly_delta_usd
    assert approval.max_monthly_delta_usd is not None
    return {
        "iss": issuer,
        "aud": AUDIENCE,
        "token_type": TOKEN_TYPE,
        "jti": str(new_id()),
        "iat": issued_at,
        "nbf": issued_at,
        "exp": max(issued_at + 1, int(approval.expires_at.timestamp())),
        "tenant_id": str(approval.tenant_id),
        "project_id": approval.project_id,
        "environment": approval.environment,
        "source": approval.source,
        "decision_id": str(approval.decision_id),
        "approval_id": str(approval.pk),
        "request_fingerprint": decision.request_fingerprint,
        "change_fingerprint": decision.change_fingerprint,
        "resource_reference": decision.resource_reference,
        "max_monthly_delta_usd": to_text(approval.max_monthly_delta_usd),
        "max_hourly_delta_usd": None if hourly is None else to_text(hourly),
    }
