"""Reads of rollout: what is measured, and the promotions that wait."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from django.db import connection

from enforcement.rollout.domain import MEASURED_DAYS, MEASURED_DECISIONS, Figures
from enforcement.rollout.models import PROPOSED, Promotion

# A breach is what soft asks people about and hard refuses; its code is with the decision.
_MEASURE: Final = """
WITH made AS (
    SELECT d.id, d.is_fail_safe, d.approval_request_id,
           substring(d.response_json FROM '"latency_ms":([0-9]+)')::int AS latency_ms,
           d.would_have_been IS NOT NULL
           OR (d.decision = 'REQUIRE_APPROVAL' AND d.entitlement_reason_code IS NOT NULL)
              AS is_refusal
      FROM enforcement_ledger_entry l
      JOIN enforcement_decision d ON d.id = l.decision_id AND d.tenant_id = l.tenant_id
     WHERE l.tenant_id = %(tenant)s AND l.event = 'decision_made' AND l.at >= %(since)s
       AND l.source = %(source)s AND l.environment = %(environment)s AND l.mode = %(mode)s
     ORDER BY l.at DESC LIMIT %(limit)s
)
SELECT count(*), count(*) FILTER (WHERE is_refusal),
       count(*) FILTER (WHERE is_refusal AND (
           EXISTS (SELECT FROM governance_approval a WHERE a.id = made.approval_request_id
                     AND a.status IN ('approved', 'consumed'))
           OR EXISTS (SELECT FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
                       WHERE r.decision_id = made.id
                         AND (c.confirmed_at IS NOT NULL OR r.state = 'settled')))),
       count(*) FILTER (WHERE is_fail_safe),
       percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms)
  FROM made
"""


def measure(tenant_id: uuid.UUID, scope: tuple[str, str], *, mode: str, now: datetime) -> Figures:
    """Measure the decisions of a source and environment in a mode, over the last days.

    :raises NotInTransaction: outside a transaction.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _MEASURE,
            {
                "tenant": tenant_id,
                "source": scope[0],
                "environment": scope[1],
                "mode": mode,
                "since": now - timedelta(days=MEASURED_DAYS),
                "limit": MEASURED_DECISIONS,
            },
        )
        decisions, refusals, false_positives, errors, p95_ms = cursor.fetchone()
    return Figures(
        decisions=decisions,
        refusals=refusals,
        false_positives=false_positives,
        errors=errors,
        p95_ms=p95_ms,
    )


def find_proposed(tenant_id: uuid.UUID, now: datetime) -> dict[tuple[str, str], Promotion]:
    """Return the proposals that wait for a second person, by source and environment."""
    rows = Promotion.objects.filter(tenant_id=tenant_id, state=PROPOSED, expires_at__gt=now)
    return {(row.source, row.environment): row for row in rows}


def lock_proposed(tenant_id: uuid.UUID, scope: tuple[str, str]) -> Promotion | None:
    """Lock and return the proposal of a source and environment, an expired one too."""
    rows = Promotion.objects.filter(
        tenant_id=tenant_id, source=scope[0], environment=scope[1], state=PROPOSED
    )
    return rows.select_for_update(of=("self",)).first()
