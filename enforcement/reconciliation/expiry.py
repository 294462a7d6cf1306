"""The use case of expiry: an approval whose time is over ends, and its hold goes back (SPEC 6).

First approvals end; then every family gives back what decisions hold whose approval ended without
being given, all of them at once, so that those which lean on one another go together. What could
not go is found again by the next run.
"""

from __future__ import annotations

import logging
import uuid
from typing import Final

from django.db import IntegrityError, OperationalError, connection

from billing.reservations import families
from billing.reservations.settlement import SettlementInconsistent
from enforcement.ledger import domain as ledger
from enforcement.ledger.operations import append
from enforcement.reconciliation.approval import approval_facts, find_refused, revoke_facts
from enforcement.reconciliation.telling import build_entries
from governance.approvals.models import EXPIRED, OPEN, Approval
from governance.approvals.observing import observe_ended
from governance.approvals.operations import expire_due
from governance.approvals.state import get_approval
from governance.audit.operations import Actor
from governance.incidents.operations import Sighting, open_incident
from valdrix.kernel.db import reading, sqlstate_of, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.metrics import RECONCILIATIONS

log = logging.getLogger("valdrix.reconciliation")

_BATCH: Final = 500
_NOT_HAD: Final = frozenset({"55P03", "40P01"})
_LEFT_OVER: Final = """
SELECT DISTINCT c.family_id
  FROM billing_reservation r
  JOIN billing_charge c ON c.id = r.charge_id
  JOIN enforcement_decision d ON d.id = r.decision_id AND d.decision = 'REQUIRE_APPROVAL'
  JOIN governance_approval a ON a.id = d.approval_request_id
 WHERE r.tenant_id = %s AND r.state = 'active' AND a.status IN ('expired', 'denied', 'withdrawn')
 ORDER BY c.family_id LIMIT %s
"""


def expire_approvals(*, actor: Actor) -> dict[str, int]:
    """End every approval of one tenant whose time is over, and release what it held.

    One that was given and not spent ends like one that still waits. Only the refused decisions' own parts are released. Any number of workers may do this at once:
    each approval ends once, and each hold goes back once.

    :return: how many approvals were ``expired``, and how many decisions' holds ``released``.
    """
    counts = {"expired": 0, "released": 0}
    with reading(actor.tenant_id):
        due = list(
            Approval.objects.filter(
                tenant_id=actor.tenant_id, status__in=OPEN, expires_at__lte=actor.at
            )
            .order_by("expires_at")
            .values_list("id", flat=True)[:_BATCH]
        )
    for approval_id in due:
        counts["expired"] += _end(actor, approval_id)
    with reading(actor.tenant_id), connection.cursor() as cursor:
        cursor.execute(_LEFT_OVER, [actor.tenant_id, _BATCH])
        left_over = [family_id for (family_id,) in cursor.fetchall()]
    for family_id in left_over:
        counts["released"] += release_refused(actor=actor, family_id=family_id, trigger="expired")
    return counts


def _end(actor: Actor, approval_id: uuid.UUID) -> bool:
    with transaction(actor.tenant_id):
        if not expire_due(tenant_id=actor.tenant_id, approval_id=approval_id, at=actor.at):
            return False
        approval = get_approval(actor.tenant_id, approval_id)
        fact = approval_facts(actor, approval, event=ledger.APPROVAL_EXPIRED, status=EXPIRED)
        revoked = revoke_facts(actor, approval, status=EXPIRED)
        append(tenant_id=actor.tenant_id, facts=[fact, *revoked])
    observe_ended(approval, ending=EXPIRED, at=actor.at)
    return True


def release_refused(
    *, actor: Actor, family_id: uuid.UUID, trigger: str, skip_locked: bool = True
) -> int:
    """Release what refused decisions of one family hold; return how many of them.

    :param trigger: what ended their approvals, for the metric.
    :param skip_locked: leave a family that another worker is releasing to that worker.
    """
    try:
        with transaction(actor.tenant_id):
            family = families.lock_family(actor.tenant_id, family_id, skip_locked=skip_locked)
            if family is None:
                return 0
            refused = find_refused(actor.tenant_id, family.decision_ids)
            if not refused or not families.release_members(
                tenant_id=actor.tenant_id, family=family, decision_ids=refused
            ):
                return 0
            RECONCILIATIONS.labels(trigger, "released").inc(len(refused))
            facts = build_entries(actor, ledger.RELEASED, refused)
            append(tenant_id=actor.tenant_id, facts=facts)
            return len(refused)
    except OperationalError as error:
        if sqlstate_of(error) not in _NOT_HAD:
            raise
        return 0  # Another worker holds what this family needs; the next run finds it again.
    except (IntegrityError, families.LinesMoved, SettlementInconsistent) as error:
        _report(actor, family_id, error)
        return 0


def _report(actor: Actor, family_id: uuid.UUID, error: Exception) -> None:
    """Open an incident for what could not be released, in a transaction of its own."""
    log.error("release of family %s is inconsistent", family_id, exc_info=error)
    with transaction(actor.tenant_id):
        open_incident(
            sighting=Sighting(
                incident_id=new_id(),
                tenant_id=actor.tenant_id,
                kind="settlement_inconsistent",
                subject=str(family_id),
                detail="What a refused decision holds does not add up; nothing was released.",
                at=actor.at,
            )
        )
