"""Reads of tokens and keys; their row locks."""

from __future__ import annotations

import uuid

from governance.tokens.models import LIVE, ApprovalToken, TokenKey
from valdrix.kernel.db import transaction_required


def find_token(tenant_id: uuid.UUID, jti: uuid.UUID) -> ApprovalToken | None:
    """Return a token's row as it is now."""
    return ApprovalToken.objects.filter(tenant_id=tenant_id, pk=jti).first()


def lock_live(tenant_id: uuid.UUID, approval_id: uuid.UUID) -> list[uuid.UUID]:
    """Lock the live tokens of an approval, in primary-key order; return which they are."""
    transaction_required()
    rows = ApprovalToken.objects.filter(tenant_id=tenant_id, approval_id=approval_id, status=LIVE)
    return list(rows.order_by("pk").select_for_update(of=("self",)).values_list("pk", flat=True))


def lock_key(kid: str) -> TokenKey | None:
    """Lock and return a signing key."""
    transaction_required()
    return TokenKey.objects.filter(pk=kid).select_for_update(of=("self",)).first()
