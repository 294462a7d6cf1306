"""The use case of consuming: a token is spent once, on the change that people approved (SPEC 6)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from billing.reservations import families
from billing.reservations.families import Family
from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.gate.inputs import fingerprint_of_change
from enforcement.ledger import domain as ledger
from enforcement.ledger.operations import append
from enforcement.reconciliation.approval import (
    Asked,
    ReservationNotActive,
    approval_facts,
    find_applied,
    lock_asked,
)
from enforcement.reconciliation.operations import apply_family
from enforcement.review.domain import Clock
from enforcement.review.judging import require_project
from governance.approvals.models import APPROVED, Approval
from governance.approvals.state import check_status, get_approval
from governance.audit.operations import Actor
from governance.identity.domain import Principal
from governance.policies.queries import read_live_policy
from governance.tokens.domain import Token, TokenExpired, TokenInvalid, verify
from governance.tokens.keys import find_public_key
from governance.tokens.models import CONSUMED, REVOKED, ApprovalToken
from governance.tokens.operations import Consumption, consume_token
from governance.tokens.queries import find_token
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import transaction
from valdrix.kernel.money import to_text
from valdrix.kernel.problems import Refused


class ProjectMismatch(Refused):
    """The token is for another project (409); it was not consumed."""

    code = "approval_project_mismatch"


class EnvironmentMismatch(Refused):
    """The token is for another environment (409); it was not consumed."""

    code = "approval_environment_mismatch"


class ChangeMismatch(Refused):
    """The token is for another change (409); it was not consumed."""

    code = "approval_change_mismatch"


class FingerprintMismatch(Refused):
    """The token is for another request (409); it was not consumed."""

    code = "request_fingerprint_mismatch"


class CostExceeded(Refused):
    """The cost is above what was approved (409); the token was not consumed."""

    code = "approval_cost_exceeded"


class TokenReplayed(Refused):
    """The token was spent before (409)."""

    code = "approval_token_replayed"


class TokenRevoked(Refused):
    """The token was replaced by another, or its approval ended (409)."""

    code = "approval_token_revoked"


class IdempotencyKeyReused(Refused):
    """The key spent this token with another payload (409)."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a caller says that the token is spent on; amounts in US dollars."""

    monthly_delta_usd: Decimal
    hourly_delta_usd: Decimal | None = None
    change_digest: str | None = None
    expected_request_fingerprint: str | None = None
    expected_project_id: str | None = None
    expected_environment: str | None = None
    idempotency_key: str | None = None

    def payload_sha256(self) -> str:
        """Return the digest that tells a repeated call from another one with the same key."""
        hourly = self.hourly_delta_usd
        return sha256_hex(
            {
                "monthly_delta_usd": to_text(self.monthly_delta_usd),
                "hourly_delta_usd": None if hourly is None else to_text(hourly),
                "change_digest": self.change_digest,
                "expected_request_fingerprint": self.expected_request_fingerprint,
                "expected_project_id": self.expected_project_id,
                "expected_environment": self.expected_environment,
            }
        )


def consume(
    *, principal: Principal, text: str, binding: Binding, issuer: str, clock: Clock
) -> tuple[dict[str, Any], bool]:
    """Spend a token on the change that it was given for; the change counts as applied.

    :return: the answer, and whether it is the first answer repeated.
    :raises TokenInvalid: forged, changed, of another tenant, or of a retired key.
    :raises TokenExpired: past its end.
    :raises TokenReplayed: spent before, under another idempotency key or none.
    :raises TokenRevoked: replaced by another, or its approval ended.
    :raises Refused: when a binding does not hold, each with its own code; nothing is written.
    """
    with transaction(principal.tenant_id):
        token = verify(
            text,
            find_key=lambda kid: find_public_key(kid, at=clock()),
            issuer=issuer,
            at=clock(),
        )
        if token.tenant_id != principal.tenant_id:
            raise TokenInvalid
        row = _find_row(principal.tenant_id, token)
        approval = get_approval(principal.tenant_id, row.approval_id)
        # Before anything is told: what was answered first is the project's own.
        require_project(principal, approval)
        first = _find_first_answer(row, binding)
        if first is not None:
            return first, True
        if token.is_expired:
            raise TokenExpired("The approval token is past its end; ask the gate again.")
        _check_binding(approval, binding)
        locked = _lock(principal, approval, clock)
        # Somebody may have spent it, or it may have ended, while we waited.
        row = _find_row(principal.tenant_id, token)
        first = _find_first_answer(row, binding)
        if first is not None:
            return first, True
        return _spend(locked, row, binding), False


@dataclass(frozen=True, slots=True)
class _Locked:
    """What a token is spent on, under the locks: the family that holds it, and its approvals."""

    actor: Actor
    family: Family | None
    asked: Asked
    approval: Approval


def _lock(principal: Principal, approval: Approval, clock: Clock) -> _Locked:
    """Take the locks of a settlement, and then the approvals of everything that it holds."""
    tenant_id = principal.tenant_id
    held_id = approval.held_decision_id
    family_id = None if held_id is None else families.find_family_id(tenant_id, held_id)
    family = None if family_id is None else families.lock_family(tenant_id, family_id)
    if family is not None and held_id not in family.decision_ids:
        family = None
    members = () if family is None else family.decision_ids
    asked = lock_asked(tenant_id, members, also=(approval.pk,))
    return _Locked(
        actor=Actor(
            tenant_id=tenant_id, principal_id=principal.principal_id, address=None, at=clock()
        ),
        family=family,
        asked=asked,
        approval=asked.locked[approval.pk],
    )


def _spend(locked: _Locked, row: ApprovalToken, binding: Binding) -> dict[str, Any]:
    """Spend a live token, once, and let the family that holds its change count as applied."""
    actor, approval, family = locked.actor, locked.approval, locked.family
    # The token's own end counts, with its leeway; the job that ends approvals has the last word.
    check_status(approval, APPROVED, at=approval.requested_at)
    held_id = approval.held_decision_id
    if family is None or held_id is None:
        raise ReservationNotActive("What was approved is not held any more; ask the gate again.")
    applied = find_applied(actor.tenant_id, family, held_id, locked.asked)
    answer = _build_answer(approval)
    is_spent = consume_token(
        token=row,
        consumption=Consumption(
            principal_id=actor.principal_id,
            key=binding.idempotency_key,
            sha256=binding.payload_sha256(),
            response=answer,
            at=actor.at,
        ),
    )
    if not is_spent:
        raise TokenReplayed("The approval token was spent before.")
    facts = [approval_facts(actor, approval, event=ledger.TOKEN_CONSUMED, jti=row.jti)]
    facts.extend(
        apply_family(actor=actor, family=family, applied=applied, named=held_id, by_token=True)
    )
    append(tenant_id=actor.tenant_id, facts=facts)
    return answer


def _find_row(tenant_id: uuid.UUID, token: Token) -> ApprovalToken:
    """Return a token's row; what its text says must be what was issued.

    :raises TokenInvalid: when it was never issued, or not as this.
    """
    row = find_token(tenant_id, token.jti)
    if row is None or row.kid != token.kid or orjson.loads(row.claims_json) != token.claims:
        raise TokenInvalid
    return row


def _find_first_answer(row: ApprovalToken, binding: Binding) -> dict[str, Any] | None:
    """Return the first answer to the same call, or None for a token that is live.

    :raises TokenReplayed: when it was spent by another call.
    :raises TokenRevoked: when it was replaced, or its approval ended.
    :raises IdempotencyKeyReused: when the key spent it with another payload.
    """
    if row.status == REVOKED:
        raise TokenRevoked("The approval token was replaced by another, or its approval ended.")
    if row.status != CONSUMED:
        return None
    if binding.idempotency_key is None or binding.idempotency_key != row.consume_key:
        raise TokenReplayed("The approval token was spent before.")
    if row.consume_sha256 != binding.payload_sha256():
        raise IdempotencyKeyReused("The idempotency key spent this token with another payload.")
    first: dict[str, Any] = orjson.loads(row.consume_response or "{}")
    return first


def _check_binding(approval: Approval, binding: Binding) -> None:
    """Check everything that a caller says the token is spent on.

    :raises Refused: with the code of the first thing that is another.
    """
    if binding.expected_project_id not in (None, approval.project_id):
        raise ProjectMismatch("The approval token is for another project.")
    if binding.expected_environment is not None:
        policy = read_live_policy(approval.tenant_id).policy
        if policy.classify_environment(binding.expected_environment) != approval.environment:
            raise EnvironmentMismatch("The approval token is for another environment.")
    _check_change(approval, binding)
    monthly, hourly = approval.max_monthly_delta_usd, approval.max_hourly_delta_usd
    if monthly is not None and binding.monthly_delta_usd > monthly:
        raise CostExceeded("The monthly cost is above what was approved.")
    asked = binding.hourly_delta_usd
    if hourly is not None and asked is not None and asked > hourly:
        raise CostExceeded("The hourly cost is above what was approved.")


def _check_change(approval: Approval, binding: Binding) -> None:
    decision = Decision.objects.get(tenant_id=approval.tenant_id, pk=approval.decision_id)
    if binding.change_digest is not None:
        found = fingerprint_of_change(
            project_id=decision.project_id,
            environment=decision.environment,
            action=decision.action,
            resource_reference=decision.resource_reference,
            change_digest=binding.change_digest,
        )
        if found != approval.change_fingerprint:
            raise ChangeMismatch("The approval token is for another change.")
    expected = binding.expected_request_fingerprint
    if expected is not None and not _is_waiting(approval, expected):
        raise FingerprintMismatch("The approval token is for another request.")


def _is_waiting(approval: Approval, request_fingerprint: str) -> bool:
    """Tell whether one of the decisions that the approval was given for answered this request."""
    return Decision.objects.filter(
        tenant_id=approval.tenant_id,
        approval_request_id=approval.pk,
        decision=REQUIRE_APPROVAL,
        request_fingerprint=request_fingerprint,
    ).exists()


def _build_answer(approval: Approval) -> dict[str, Any]:
    hourly = approval.max_hourly_delta_usd
    assert approval.max_monthly_delta_usd is not None
    return {
        "status": "consumed",
        "decision_id": str(approval.decision_id),
        "approval_id": str(approval.pk),
        "max_monthly_delta_usd": to_text(approval.max_monthly_delta_usd),
        "max_hourly_delta_usd": None if hourly is None else to_text(hourly),
    }
