"""Which decisions hold something that nobody has approved, and what applying them spends."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing.reservations.approved import find_firm_usd
from billing.reservations.families import Family, can_leave
from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.domain import EntryFacts
from governance.approvals.models import APPROVED, CONSUMED, GIVEN, Approval
from governance.approvals.queries import find_ended, find_ungiven, is_any_ungiven
from governance.approvals.state import end_approval, lock_approvals
from governance.audit.operations import Actor
from governance.tokens.operations import revoke_tokens
from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import Refused

TOKEN: Final = "approval_token"  # noqa: S105 - a subject's type


class ApprovalPending(Refused):
    """A decision of the family waits for its approval: nothing can have been applied (409)."""

    code = "approval_pending"


class ReservationNotActive(Refused):
    """The decision holds nothing that could still be confirmed or settled (409)."""

    code = "reservation_not_active"


@dataclass(frozen=True, slots=True)
class Asked:
    """The locked approvals of a family's decisions.

    :ivar by_decision: which approval each decision waits for or was given.
    """

    by_decision: dict[uuid.UUID, uuid.UUID]
    locked: dict[uuid.UUID, Approval]


@dataclass(frozen=True, slots=True)
class Applied:
    """What of a locked family counts as applied, and what does not.

    :ivar spent: the locked approvals that are spent with it: given, and what they approved is held.
    :ivar waiting: members that nobody has approved; what they hold stays with their approval.
    """

    spent: tuple[Approval, ...] = ()
    waiting: tuple[uuid.UUID, ...] = ()


def lock_asked(
    tenant_id: uuid.UUID,
    decision_ids: Collection[uuid.UUID],
    *,
    also: Collection[uuid.UUID] = (),
) -> Asked:
    """Lock the approvals that these decisions wait for or were given, in primary-key order.

    :param also: approvals to lock with them.
    """
    by_decision = _approvals_of(tenant_id, decision_ids)
    locked = lock_approvals(tenant_id, {*by_decision.values(), *also})
    return Asked(by_decision, {one.pk: one for one in locked})


def find_applied(tenant_id: uuid.UUID, family: Family, named: uuid.UUID, asked: Asked) -> Applied:
    """Return what of a locked family counts as applied once one of its decisions was.

    What is asked about the same change meanwhile keeps nothing from being applied that was
    approved: anybody who may ask could do that for ever. But what is applied must be held
    without what waits, which may be given back at any time.

    :param named: the decision that was applied.
    :raises ApprovalPending: when nobody approved it, or it leans on what waits.
    :raises ReservationNotActive: when less is held than was approved.
    """
    waiting = tuple(
        decision_id
        for decision_id, approval_id in sorted(asked.by_decision.items())
        if asked.locked[approval_id].status not in GIVEN
    )
    if named in waiting or (waiting and not can_leave(tenant_id, waiting)):
        raise ApprovalPending("The change waits for its approval; it cannot be applied yet.")
    approval_id = asked.by_decision.get(named)
    own = None if approval_id is None else asked.locked[approval_id]
    if own is not None and _is_spent_elsewhere(family, own):
        raise ReservationNotActive("Its approval was spent by another run of the same change.")
    if waiting or (own is not None and own.status == APPROVED):
        _check_held(tenant_id, *_find_due(tenant_id, family, named, own), waiting)
    held_here = {
        one.pk for one in asked.locked.values() if _is_held_here(tenant_id, family, one, waiting)
    }
    spent = tuple(one for one in asked.locked.values() if one is own or one.pk in held_here)
    return Applied(spent, waiting)


def _is_spent_elsewhere(family: Family, approval: Approval) -> bool:
    """Tell whether what an approval gave was applied already, and not by this family."""
    by = approval.consumed_by_decision_id or approval.held_decision_id
    is_new = family.confirmed_at is None
    return is_new and approval.status == CONSUMED and by not in family.decision_ids


def _find_due(
    tenant_id: uuid.UUID, family: Family, named: uuid.UUID, approval: Approval | None
) -> tuple[uuid.UUID, Decimal | None]:
    """Return whose charge must hold how much once a decision was applied."""
    asked_usd = Decision.objects.get(tenant_id=tenant_id, pk=named).monthly_delta_usd
    if approval is None or approval.status != APPROVED:
        return named, asked_usd
    holder, approved_usd = approval.held_decision_id, approval.max_monthly_delta_usd
    if holder is not None and holder in family.decision_ids:
        return holder, approved_usd
    # One that joined from a family of its own; without a cost it may spend all that was approved.
    return named, approved_usd if asked_usd is None else asked_usd


def _check_held(
    tenant_id: uuid.UUID,
    holder: uuid.UUID,
    amount_usd: Decimal | None,
    waiting: Collection[uuid.UUID],
) -> None:
    """Check that what is applied is held, whatever becomes of what waits.

    :raises ApprovalPending: when it is held only together with what waits.
    :raises ReservationNotActive: when it is not held.
    """
    least = max(ZERO, amount_usd or ZERO)
    if (find_firm_usd(tenant_id, holder, leaving=waiting) or ZERO) >= least:
        return
    if waiting and (find_firm_usd(tenant_id, holder, leaving=()) or ZERO) >= least:
        raise ApprovalPending("It leans on what waits for an approval; it cannot be applied yet.")
    raise ReservationNotActive("What was approved is not held any more; ask the gate again.")


def _is_held_here(
    tenant_id: uuid.UUID, family: Family, approval: Approval, waiting: Collection[uuid.UUID]
) -> bool:
    """Tell whether what an approval gave is held by this family: then it is applied with it."""
    holder = approval.held_decision_id
    if approval.status != APPROVED or holder is None or holder not in family.decision_ids:
        return False
    firm = find_firm_usd(tenant_id, holder, leaving=waiting)
    return firm is not None and firm >= max(ZERO, approval.max_monthly_delta_usd or ZERO)


def spend_applied(
    actor: Actor, approvals: Collection[Approval], *, by: uuid.UUID | None
) -> list[EntryFacts]:
    """Spend locked approvals whose change was applied, and return the entries that say so.

    What was applied cannot be applied again: neither the approval nor a token of it.

    :param by: the decision that was applied without a token; None for a token's.
    """
    facts = []
    for approval in approvals:
        if approval.status != APPROVED:
            continue
        end_approval(approval=approval, status=CONSUMED, at=actor.at, consumed_by=by)
        facts.append(approval_facts(actor, approval, event=ledger.APPROVAL_CONSUMED))
        facts.extend(revoke_facts(actor, approval, status=CONSUMED))
    return facts


def revoke_facts(actor: Actor, approval: Approval, *, status: str) -> list[EntryFacts]:
    """Revoke the live token of a locked approval, and return the entries that say so.

    :param status: the one that the approval is in afterwards.
    """
    revoked = revoke_tokens(
        tenant_id=actor.tenant_id,
        approval_id=approval.pk,
        by=actor.principal_id,
        at=actor.at,
    )
    return [
        approval_facts(actor, approval, event=ledger.TOKEN_REVOKED, status=status, jti=jti)
        for jti in revoked
    ]


def approval_facts(
    actor: Actor,
    approval: Approval,
    *,
    event: str,
    status: str = CONSUMED,
    jti: uuid.UUID | None = None,
) -> EntryFacts:
    """Return the entry of what became of an approval, or of a token of it."""
    return EntryFacts(
        event=event,
        at=actor.at,
        principal=actor.principal_id,
        source=approval.source,
        project_id=approval.project_id,
        environment=approval.environment,
        decision_id=approval.decision_id,
        approval_request_id=approval.pk,
        approval_status=status,
        subject_type=None if jti is None else TOKEN,
        subject_id=None if jti is None else str(jti),
        amount_usd=approval.max_monthly_delta_usd,
    )


def is_any_unapproved(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> bool:
    """Tell whether one of these decisions asked for an approval that was not given.

    The approval may be its own or one that it joined.
    """
    return is_any_ungiven(tenant_id, _approvals_of(tenant_id, decision_ids).values())


def find_unapproved(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of these decisions that asked for an approval that was not given, oldest first."""
    approvals = _approvals_of(tenant_id, decision_ids)
    ungiven = find_ungiven(tenant_id, set(approvals.values()))
    return sorted(one for one, approval_id in approvals.items() if approval_id in ungiven)


def find_refused(tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of these decisions whose approval ended without being given, oldest first."""
    approvals = _approvals_of(tenant_id, decision_ids)
    ended = find_ended(tenant_id, set(approvals.values()))
    return sorted(one for one, approval_id in approvals.items() if approval_id in ended)


def _approvals_of(
    tenant_id: uuid.UUID, decision_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, uuid.UUID]:
    rows = Decision.objects.filter(
        tenant_id=tenant_id,
        id__in=decision_ids,
        decision=REQUIRE_APPROVAL,
        approval_request_id__isnull=False,
    )
    return {
        decision_id: approval_id
        for decision_id, approval_id in rows.values_list("id", "approval_request_id")
        if approval_id is not None
    }
