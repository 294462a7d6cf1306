"""Admissions let through that nobody confirmed: what they hold lapses within minutes (SPEC 8).

A later admission step may have refused the object after Valdrix let it through, and nobody tells.
"""

from __future__ import annotations

import uuid

from billing.reservations import families
from billing.reservations.families import Family
from billing.reservations.models import AUTO_RELEASE, Reservation
from billing.reservations.settlement import SettlementInconsistent
from enforcement.decisions.models import Decision
from enforcement.gate.inputs import K8S_ADMISSION
from enforcement.ledger import domain as ledger
from enforcement.ledger.operations import append
from enforcement.reconciliation.approval import is_any_unapproved
from enforcement.reconciliation.telling import build_entries
from governance.audit.operations import Actor
from valdrix.kernel.metrics import RECONCILIATIONS


def release_lapsed_admissions(actor: Actor, family: Family) -> str | None:
    """Release what lapsed admissions of a locked family hold themselves, while others go on.

    :return: ``released``, or None when there is none, or when others lean on what would go.
    :raises SettlementInconsistent: when a line is not what it should be; nothing is kept.
    """
    lapsed = _find_lapsed(actor, family)
    if not lapsed:
        return None
    try:
        is_released = families.release_members(
            tenant_id=actor.tenant_id, family=family, decision_ids=lapsed
        )
    except families.LinesMoved as error:
        raise SettlementInconsistent(
            "The admission's lines are not what it holds; nothing was released."
        ) from error
    if not is_released:
        return None
    RECONCILIATIONS.labels(AUTO_RELEASE, "released").inc()
    append(tenant_id=actor.tenant_id, facts=build_entries(actor, ledger.RELEASED, lapsed))
    return "released"


def _find_lapsed(actor: Actor, family: Family) -> list[uuid.UUID]:
    """Return the members that are unconfirmed admissions past their time, oldest first.

    One that waits for its approval ends with that.
    """
    due = Reservation.objects.filter(
        tenant_id=actor.tenant_id,
        decision_id__in=family.decision_ids,
        state="active",
        due_at__lte=actor.at,
        charge__confirmed_at__isnull=True,
    ).values_list("decision_id", flat=True)
    admissions = Decision.objects.filter(
        tenant_id=actor.tenant_id, id__in=list(due), source=K8S_ADMISSION
    ).values_list("id", flat=True)
    return [one for one in sorted(admissions) if not is_any_unapproved(actor.tenant_id, [one])]
