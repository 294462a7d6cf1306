"""Retries of a surface that cannot name its attempts: found by what they ask (SPEC 8).

An API server sends the same review again when its own write is contended. Such a retry gets the
decision that let the change through, for as long as its key is good and the reservation is active.
A refusal is asked anew, and so is what lapsed or was settled meanwhile.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import connection

from billing.reservations.domain import Change
from billing.reservations.queries import lock_change
from enforcement.gate.inputs import GateRequest

# By the charge: a change that is held is found by its fingerprint, however many came before it.
_FIND: Final = """
SELECT d.response_json
  FROM billing_charge c
  JOIN billing_reservation r ON r.charge_id = c.id AND r.state = 'active'
  JOIN enforcement_decision d ON d.id = r.decision_id
 WHERE c.tenant_id = %(tenant)s AND c.state = 'active' AND c.change_is_computed
   AND c.change_fingerprint = %(change)s
   AND d.source = %(source)s AND d.idempotency_key = %(key)s
   AND d.request_fingerprint = %(request)s AND d.created_at > %(since)s
   AND d.decision IN ('ALLOW', 'ALLOW_WITH_CREDITS')
 ORDER BY d.id DESC LIMIT 1
"""


def find_retried(
    change: Change, request: GateRequest, *, request_fingerprint: str, now: datetime
) -> str | None:
    """Return the stored response of the decision that a request repeats, or None.

    The change's lock is taken first, so that of two at once the second finds the first's.

    :raises NotInTransaction: outside the decision's transaction.
    """
    assert request.retry_seconds is not None
    lock_change(change)
    with connection.cursor() as cursor:
        cursor.execute(
            _FIND,
            {
                "tenant": change.tenant_id,
                "change": change.fingerprint,
                "source": request.source,
                "key": request.idempotency_key,
                "request": request_fingerprint,
                "since": now - timedelta(seconds=request.retry_seconds),
            },
        )
        row = cursor.fetchone()
    return None if row is None else row[0]
