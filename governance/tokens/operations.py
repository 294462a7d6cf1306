"""Writes of tokens: issued, spent, revoked; each token's row moves once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from governance.approvals.models import Approval
from governance.tokens.domain import sign
from governance.tokens.keys import get_signing_key, open_key
from governance.tokens.models import CONSUMED, LIVE, REVOKED, ApprovalToken, TokenKey
from governance.tokens.queries import lock_live
from valdrix.kernel.db import transaction_required
from valdrix.kernel.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A token's row, and its text, which only its requester sees."""

    row: ApprovalToken
    text: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """By whom a token is spent, and what the same idempotency key gets again."""

    principal_id: str
    key: str | None
    sha256: str
    response: dict[str, Any]
    at: datetime


def find_live(approval: Approval, *, at: datetime) -> Issued | None:
    """Return the live token of a locked approval as it was issued, if its key still verifies."""
    row = ApprovalToken.objects.filter(
        tenant_id=approval.tenant_id, approval=approval, status=LIVE, expires_at__gt=at
    ).first()
    if row is None:
        return None
    key = TokenKey.objects.filter(pk=row.kid).first()
    if key is None or (key.retired_at is not None and key.retired_at <= at):
        return None
    text = sign(orjson.loads(row.claims_json), key=open_key(key))
    return Issued(row, text, is_new=False)


def issue_token(
    *, approval: Approval, claims: dict[str, Any], issued_to: str, at: datetime
) -> Issued:
    """Sign a token of a locked approval and write its row.

    :param claims: all of them, in their order; ``jti`` names the row.
    :raises TokenKeyMissing: when no key can sign.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    jti = uuid.UUID(claims["jti"])
    key: SigningKey = get_signing_key(new_kid=f"approvals-{jti.hex[-12:]}", at=at)
    row = ApprovalToken.objects.create(
        jti=jti,
        tenant_id=approval.tenant_id,
        approval=approval,
        kid=key.key_id,
        claims_json=orjson.dumps(claims).decode(),
        issued_to=issued_to,
        issued_at=at,
        expires_at=approval.expires_at,
    )
    return Issued(row, sign(claims, key=key), is_new=True)


def revoke_tokens(
    *, tenant_id: uuid.UUID, approval_id: uuid.UUID, by: str, at: datetime
) -> list[uuid.UUID]:
    """Revoke what live tokens a locked approval has; return which."""
    transaction_required()
    found = lock_live(tenant_id, approval_id)
    if found:
        ApprovalToken.objects.filter(pk__in=found, status=LIVE).update(
            status=REVOKED, closed_at=at, closed_by=by
        )
    return found


def consume_token(*, token: ApprovalToken, consumption: Consumption) -> bool:
    """Spend a live token; return False when somebody else did, or revoked it.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    moved = ApprovalToken.objects.filter(pk=token.pk, status=LIVE).update(
        status=CONSUMED,
        closed_at=consumption.at,
        closed_by=consumption.principal_id,
        consume_key=consumption.key,
        consume_sha256=consumption.sha256,
        consume_response=orjson.dumps(consumption.response).decode(),
    )
    return moved == 1
