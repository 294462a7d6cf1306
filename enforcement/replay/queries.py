"""Reads of replay and simulation: stored decisions in the ledger's order, and their policies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection

from billing.models import Subscription
from billing.plans.domain import FREE, MONTHLY_EXPOSURE_CEILING_USD
from enforcement.replay.domain import KnownPolicy, StoredDecision
from governance.policies.document import canonical_policy, parse_policy
from governance.policies.models import PolicyVersion
from valdrix.kernel import strict_json
from valdrix.kernel.db import LONG_READ, reading

BATCH: Final = 1000
_READ: Final = """
SELECT l.sequence, d.id, d.created_at, d.decision, d.is_fail_safe, d.policy_version,
       d.engine_version, d.context_json, d.outcome_json, d.outcome_sha256, d.reason_codes,
       coalesce(a.status IN ('approved', 'consumed'), false)
  FROM enforcement_ledger_entry l
  JOIN enforcement_decision d ON d.id = l.decision_id AND d.tenant_id = l.tenant_id
  LEFT JOIN governance_approval a ON a.id = d.approval_request_id AND a.tenant_id = d.tenant_id
 WHERE l.tenant_id = %(tenant)s AND l.event = 'decision_made'
   AND l.at >= %(start)s AND l.at < %(end)s AND l.sequence > %(after)s
 ORDER BY l.sequence LIMIT %(limit)s
"""
_COUNT: Final = """
SELECT count(*) FROM enforcement_ledger_entry
 WHERE tenant_id = %(tenant)s AND event = 'decision_made' AND at >= %(start)s AND at < %(end)s
"""
_EMPTY: Final = canonical_policy({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Whose decisions are wanted: those made from ``start_at`` until before ``end_at``."""

    tenant_id: uuid.UUID
    start_at: datetime
    end_at: datetime


def count_decisions(span: Span) -> int:
    """Return how many decisions a span has."""
    with reading(span.tenant_id, limits=LONG_READ), connection.cursor() as cursor:
        cursor.execute(_COUNT, _parameters(span))
        return int(cursor.fetchone()[0])


def stream_decisions(span: Span) -> Iterator[list[StoredDecision]]:
    """Yield a span's decisions in the ledger's order, a bounded number at a time.

    Each batch is read in a transaction of its own: decisions never change, and a long history
    holds no snapshot for as long as it takes to work through it.
    """
    after = 0
    while True:
        with reading(span.tenant_id, limits=LONG_READ), connection.cursor() as cursor:
            cursor.execute(_READ, {**_parameters(span), "after": after, "limit": BATCH})
            rows = cursor.fetchall()
        if not rows:
            return
        names = StoredDecision.__struct_fields__
        found = [StoredDecision(**dict(zip(names, row, strict=True))) for row in rows]
        after = found[-1].sequence
        yield found


def read_tier_ceilings(tenant_id: uuid.UUID) -> tuple[Decimal, Decimal]:
    """Return the plan and enterprise ceiling of the tenant's tier, US dollars a month."""
    with reading(tenant_id):
        subscription = Subscription.objects.filter(tenant_id=tenant_id).first()
    ceiling = MONTHLY_EXPOSURE_CEILING_USD[subscription.tier if subscription else FREE]
    return ceiling, ceiling


class PolicyShelf(dict[int, KnownPolicy]):
    """A tenant's policy versions by number, each read and parsed when it is first asked for."""

    def __init__(self, tenant_id: uuid.UUID) -> None:
        super().__init__()
        self._tenant_id = tenant_id

    def fetch(self, numbers: set[int]) -> None:
        """Read the versions of these numbers that are not here yet."""
        wanted = numbers - self.keys()
        if 0 in wanted:
            self[0] = KnownPolicy(_EMPTY.sha256, parse_policy({}))
        if not wanted:
            return
        with reading(self._tenant_id):
            rows = PolicyVersion.objects.filter(tenant_id=self._tenant_id, number__in=wanted)
            for version in rows:
                document = strict_json.loads(version.canonical_json.encode())
                known = KnownPolicy(canonical_policy(document).sha256, parse_policy(document))
                self[version.number] = known


def _parameters(span: Span) -> dict[str, Any]:
    return {"tenant": span.tenant_id, "start": span.start_at, "end": span.end_at}
