"""Retries of a surface that cannot name its attempts: found by what they ask (SPEC 8).

An API server sends the same review again when its own write is contended. Such a retry gets the
decision that let the change through, for as long as its key is good and the reservation is active.
A refusal is asked anew, and so is what lapsed or was settled meanwhile.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection

from billing.reservations.domain import Change
from billing.reservations.queries import lock_change
from enforcement.gate.inputs import GateRequest

# By the charge: a change that is held is found by its fingerprint, however many came before it.
_FROM: Final = """
  FROM billing_charge c
  JOIN billing_reservation r ON r.charge_id = c.id AND r.state = 'active'
  JOIN enforcement_decision d ON d.id = r.decision_id
 WHERE c.tenant_id = {tenant} AND c.state = 'active' AND c.change_is_computed
   AND c.change_fingerprint = {change}
   AND d.source = {source} AND d.idempotency_key = {key}
   AND d.request_fingerprint = {request} AND d.created_at > {since}
   AND d.decision IN ('ALLOW', 'ALLOW_WITH_CREDITS')
"""
_NAMES: Final = ("tenant", "change", "source", "key", "request", "since")
_FIND: Final = (
    "SELECT d.response_json"
    + _FROM.format(**{name: f"%({name})s" for name in _NAMES})
    + " ORDER BY d.id DESC LIMIT 1"
)
RETRIED: Final = "SELECT 1" + _FROM.format(
    tenant="p_tenant",
    change="p_change->>'fingerprint'",
    source="p_change->'retry'->>'source'",
    key="p_change->'retry'->>'key'",
    request="p_change->'retry'->>'request'",
    since="(p_change->'retry'->>'since')::timestamptz",
)
"""Whether a change was asked about before, for the database: by what :func:`describe` says."""


def describe(
    request: GateRequest, *, request_fingerprint: str, now: datetime
) -> dict[str, Any] | None:
    """Return how the decision is found that a request may repeat; None for one that names itself."""
    if request.retry_seconds is None:
        return None
    return {
        "source": request.source,
        "key": request.idempotency_key,
        "request": request_fingerprint,
        "since": now - timedelta(seconds=request.retry_seconds),
    }


def find_retried(
    change: Change, request: GateRequest, *, request_fingerprint: str, now: datetime
) -> str | None:
    """Return the stored response of the decision that a request repeats, or None.

    The change's lock is taken first, so that of two at once the second finds the first's.

    :raises NotInTransaction: outside the decision's transaction.
    """
    described = describe(request, request_fingerprint=request_fingerprint, now=now)
    assert described is not None
    lock_change(change)
    with connection.cursor() as cursor:
        cursor.execute(
            _FIND, {"tenant": change.tenant_id, "change": change.fingerprint, **described}
        )
        row = cursor.fetchone()
    return None if row is None else row[0]
