"""Claims: who came first with a key, decided by one unique index."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from valdrix.kernel.db import transaction_required
from valdrix.kernel.problems import Refused

_CLAIM = """
INSERT INTO enforcement_idempotency_key
    (tenant_id, source, stored_key, request_fingerprint, sent_sha256, decision_id, claimed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id
"""
_FIND = """
SELECT k.request_fingerprint, k.sent_sha256, d.response_json
  FROM enforcement_idempotency_key k JOIN enforcement_decision d ON d.id = k.decision_id
 WHERE k.tenant_id = %s AND k.source = %s AND k.stored_key = %s
"""


class IdempotencyKeyReused(Refused):
    """The key already names an attempt with another request."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's name, what it asks, and the decision that it would get."""

    tenant_id: uuid.UUID
    source: str
    stored_key: str
    request_fingerprint: str
    sent_sha256: str
    decision_id: uuid.UUID
    claimed_at: datetime


def claim_key(*, claim: Claim) -> str | None:
    """Claim a key; return None when it was free, else the stored response of its decision.

    A second caller waits here until the first one's transaction ends: two concurrent calls with
    one key make one decision.

    :raises IdempotencyKeyReused: when the key names an attempt with another request.
    :raises NotInTransaction: outside the decision's transaction.
    """
    transaction_required()
    name = (claim.tenant_id, claim.source, claim.stored_key)
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM,
            [
                *name,
                claim.request_fingerprint,
                claim.sent_sha256,
                claim.decision_id,
                claim.claimed_at,
            ],
        )
        if cursor.fetchone() is not None:
            return None
        # A later statement sees what the first caller has committed; the claim above does not.
        cursor.execute(_FIND, name)
        fingerprint, sent_sha256, response_json = cursor.fetchone()
    if fingerprint != claim.request_fingerprint and sent_sha256 != claim.sent_sha256:
        raise IdempotencyKeyReused(
            "The idempotency key was used before for another request; use a new key."
        )
    stored: str = response_json
    return stored
