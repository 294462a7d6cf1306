"""The use case of expiry: an approval whose time is over ends, and its hold goes back (SPEC 6)."""

from __future__ import annotations

import uuid
from typing import Final

from django.db import OperationalError

from billing.reservations import families
from enforcement.decisions.models import Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.domain import EntryFacts
from enforcement.ledger.operations import append
from governance.approvals.models import PENDING, Approval
from governance.approvals.operations import expire_pending
from governance.audit.operations import Actor
from valdrix.kernel.db import reading, sqlstate_of, transaction
from valdrix.kernel.metrics import RECONCILIATIONS

_BATCH: Final = 500
_NOT_HAD: Final = frozenset({"55P03", "40P01"})


def expire_approvals(*, actor: Actor) -> dict[str, int]:
    """End every pending approval of one tenant whose time is over, and release what it held.

    Only the waiting decisions' own parts are released. Any number of workers may do this at once:
    each approval ends once.

    :return: how many approvals were ``expired``, and how many of them ``kept`` their hold because
        other decisions lean on it.
    """
    counts = {"expired": 0, "kept": 0}
    with reading(actor.tenant_id):
        due = list(
            Approval.objects.filter(
                tenant_id=actor.tenant_id, status=PENDING, expires_at__lte=actor.at
            )
            .order_by("expires_at")
            .values_list("id", "decision_id")[:_BATCH]
        )
    for approval_id, decision_id in due:
        outcome = _expire(actor, approval_id, decision_id)
        if outcome is not None:
            counts["expired"] += 1
            counts["kept"] += outcome == "kept"
    return counts


def _expire(actor: Actor, approval_id: uuid.UUID, decision_id: uuid.UUID) -> str | None:
    """End one approval; None when somebody else did, or holds what is needed just now."""
    try:
        with transaction(actor.tenant_id):
            waiting = _find_waiting(actor.tenant_id, approval_id)
            family_id = families.find_family_id(actor.tenant_id, decision_id)
            family = (
                families.lock_family(actor.tenant_id, family_id) if family_id is not None else None
            )
            members = [one for one in waiting if family and one in family.decision_ids]
            released = (
                family is not None
                and members
                and families.release_members(
                    tenant_id=actor.tenant_id, family=family, decision_ids=members
                )
            )
            _end(actor, decision_id)
            facts = [_facts(actor, decision_id, approval_id, ledger.APPROVAL_EXPIRED)]
            if released:
                RECONCILIATIONS.labels("expired", "released").inc()
                facts += [_facts(actor, one, approval_id, ledger.RELEASED) for one in members]
            append(tenant_id=actor.tenant_id, facts=facts)
            return "kept" if members and not released else "released"
    except _EndedElsewhere:
        return None
    except OperationalError as error:
        if sqlstate_of(error) not in _NOT_HAD:
            raise
        return None


def _end(actor: Actor, decision_id: uuid.UUID) -> None:
    """End the approval that a decision opened.

    :raises _EndedElsewhere: when it is not pending any more.
    """
    if not expire_pending(tenant_id=actor.tenant_id, decision_ids=[decision_id], at=actor.at):
        raise _EndedElsewhere


class _EndedElsewhere(Exception):
    """The approval is not pending any more: nothing of this expiry is kept."""


def _find_waiting(tenant_id: uuid.UUID, approval_id: uuid.UUID) -> list[uuid.UUID]:
    """Return the decisions that wait for an approval: its own, and those that joined it."""
    rows = Decision.objects.filter(tenant_id=tenant_id, approval_request_id=approval_id)
    return list(rows.order_by("id").values_list("id", flat=True))


def _facts(actor: Actor, decision_id: uuid.UUID, approval_id: uuid.UUID, event: str) -> EntryFacts:
    return EntryFacts(
        event=event,
        at=actor.at,
        principal=actor.principal_id,
        decision_id=decision_id,
        approval_request_id=approval_id,
        approval_status="expired",
    )
