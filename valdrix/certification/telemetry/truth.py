"""Truth as a certification sees it: digests of rows, replay, chain and books of one tenant."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.db import connection

from enforcement.gate.decision import decide, decode_context, encode
from enforcement.integrity.queries import run_checks
from enforcement.ledger.verification import verify_ledger
from enforcement.models import Decision
from governance.models import Incident, PolicyVersion
from governance.policies.document import parse_policy
from valdrix.kernel import strict_json
from valdrix.kernel.db import reading

_TABLES: Final = (
    "enforcement_decision",
    "enforcement_ledger_entry",
    "enforcement_idempotency_key",
    "governance_approval",
    "governance_incident",
    "billing_reservation",
    "billing_reservation_line",
    "billing_account",
)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What replay gave: how many decisions, how many otherwise than then, and their digest."""

    count: int
    differing: int
    sha256: str


def replay(tenant_id: uuid.UUID, ids: Sequence[uuid.UUID] | None = None) -> Replayed:
    """Decide decisions of a tenant once more from their stored context.

    :param ids: which; None means all that are not fail-safe.
    """
    with reading(tenant_id):
        versions = PolicyVersion.objects.filter(tenant_id=tenant_id)
        policies = {0: parse_policy({})} | {
            one.number: parse_policy(strict_json.loads(one.canonical_json.encode()))
            for one in versions
        }
        rows = Decision.objects.filter(tenant_id=tenant_id, is_fail_safe=False)
        decisions = list((rows if ids is None else rows.filter(id__in=ids)).order_by("id"))
    digest = hashlib.sha256()
    differing = 0
    for decision in decisions:
        again = encode(
            decide(decode_context(decision.context_json), policies[decision.policy_version])
        )
        differing += again != decision.outcome_json
        digest.update(again.encode())
    return Replayed(len(decisions), differing, digest.hexdigest())


def digest_truth(tenant_id: uuid.UUID) -> str:
    """Return the SHA-256 over every row of truth that a tenant has."""
    digest = hashlib.sha256()
    with reading(tenant_id), connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(
                f"SELECT t::text FROM {table} t WHERE tenant_id = %s ORDER BY 1",
                [tenant_id],
            )
            for (row,) in cursor.fetchall():
                digest.update(row.encode() + b"\n")
    return digest.hexdigest()


def count_decisions(tenant_id: uuid.UUID) -> int:
    """Return how many decisions a tenant has, fail-safe ones apart."""
    with reading(tenant_id):
        return Decision.objects.filter(tenant_id=tenant_id, is_fail_safe=False).count()


def count_incidents(tenant_id: uuid.UUID) -> tuple[int, int]:
    """Return how many incidents a tenant has, and how many of them speak of telemetry."""
    with reading(tenant_id):
        rows = list(Incident.objects.filter(tenant_id=tenant_id).values_list("kind", "subject"))
    return len(rows), sum("telemetry" in f"{kind} {subject}".lower() for kind, subject in rows)


def find_ledger_fault(tenant_id: uuid.UUID) -> str | None:
    """Return what is wrong with a tenant's chain, or None."""
    found = verify_ledger(tenant_id)
    if found.status == "intact":
        return None
    reason = f" at {found.fault.sequence}: {found.fault.reason}" if found.fault else ""
    return f"the ledger is {found.status}{reason}"


def find_books_fault(tenant_id: uuid.UUID) -> str | None:
    """Return which invariants of money do not hold, or None."""
    report = run_checks(tenant_id)
    if report.status == "sound":
        return None
    return f"the books are {report.status}: {[one.invariant.name for one in report.violated]}"
