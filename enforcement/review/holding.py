"""What an approved change holds: the waterfall again, under the locks (SPEC 3.6).

The locks are those of a gate: the change's names, its charges, the accounts; the approval comes
after them. What budget and credits do not cover is an overrun that names the approval.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from billing.accounts.domain import month_of
from billing.accounts.locking import AccountScope, lock_accounts
from billing.reservations import families
from billing.reservations import queries as charges
from billing.reservations.approved import (
    ApprovedOverrun,
    Growth,
    HeldState,
    allow_overrun,
    find_held,
    grow_hold,
)
from billing.reservations.domain import Change, HeldLine, HoldOrder
from billing.reservations.operations import hold
from enforcement.decisions.models import Decision
from enforcement.gate import waterfall
from enforcement.gate.decision import GateContext, decode_context
from enforcement.gate.inputs import GateInput
from enforcement.gate.sharing import Sharers
from enforcement.gate.snapshot import read_snapshot
from enforcement.gate.waterfall import Accounts, Waterfall, run_waterfall
from governance.policies.governing import LivePolicy
from governance.policies.queries import read_live_policy
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import Refused

_BUDGET_KINDS: Final = (waterfall.ALLOCATION, waterfall.EXPOSURE)


class CeilingExceeded(Refused):
    """Approving would pass a ceiling that an approval does not lift (409)."""

    code = "ceiling_exceeded"


class HoldReleased(Refused):
    """What the decision held was given back or settled; the gate has to be asked anew (409)."""

    code = "reservation_not_active"


@dataclass(frozen=True, slots=True)
class Locked:
    """One waiting decision, with everything locked that approving it can touch.

    :ivar held: what it holds already; None when it never held anything.
    """

    decision: Decision
    context: GateContext
    change: Change
    held: HeldState | None
    sharers: Sharers
    account_ids: list[uuid.UUID]

    @property
    def gate_input(self) -> GateInput:
        """Return the question that the decision answered."""
        return self.context.gate_input


@dataclass(frozen=True, slots=True)
class Reserved:
    """What approving a decision reserved; amounts in US dollars a month.

    :ivar is_new: the decision holds something for the first time.
    :ivar amount_usd: the whole approved amount, what is held already included.
    """

    is_new: bool
    amount_usd: Decimal
    covered_usd: Decimal
    overrun_usd: Decimal
    fall: Waterfall


def lock_for_approval(decision: Decision, *, now: datetime) -> Locked:
    """Take the locks of a gate for a decision that waits, in their order."""
    context = decode_context(decision.context_json)
    change = _build_change(decision.tenant_id, context.gate_input)
    charges.lock_change(change)
    sharers = _lock_charges(decision, change, context.gate_input)
    account_ids = lock_accounts(_scope(decision.tenant_id, context.gate_input), now=now)
    # Read only now that its family stands still.
    held = find_held(decision.tenant_id, decision.pk)
    return Locked(decision, context, change, held, sharers, account_ids)


def reserve_approved(
    locked: Locked, *, approval_id: uuid.UUID, ceiling_usd: Decimal, at: datetime
) -> Reserved:
    """Reserve what an approved change does not hold yet, and allow the rest as an overrun.

    :param ceiling_usd: the approved monthly delta; negative for a saving.
    :raises CeilingExceeded: when a ceiling that the approval does not lift would be passed.
    :raises HoldReleased: when what the decision held was given back.
    """
    if locked.held is not None and locked.held.state != "active":
        raise HoldReleased("What the decision held was given back; ask the gate again.")
    live = read_live_policy(locked.decision.tenant_id)
    snapshot = read_snapshot(
        gate_input=locked.gate_input,
        account_ids=locked.account_ids,
        policy=live.policy,
        now=at,
    )
    amount = max(ZERO, ceiling_usd)
    increase = max(ZERO, amount - _covered(locked, amount))
    fall = run_waterfall(snapshot.accounts, requested_usd=increase, now=at, with_shadow=False)
    _check_ceilings(locked, snapshot.accounts, fall)
    reserved = Reserved(
        is_new=locked.held is None,
        amount_usd=amount,
        covered_usd=increase - fall.uncovered_usd,
        overrun_usd=fall.uncovered_usd,
        fall=fall,
    )
    month = _hold(locked, reserved, live, at)
    if reserved.overrun_usd > 0:
        allow_overrun(
            overrun=ApprovedOverrun(
                tenant_id=locked.decision.tenant_id,
                decision_id=locked.decision.pk,
                approval_id=approval_id,
                account_ids=tuple(
                    uuid.UUID(line.account_id) for line in fall.holds if line.kind in _BUDGET_KINDS
                ),
                amount_usd=reserved.overrun_usd,
                month=month,
            )
        )
    return reserved


def _build_change(tenant_id: uuid.UUID, gate_input: GateInput) -> Change:
    """Return what is being changed; what waits for people is never a shadow hold."""
    return Change(
        tenant_id=tenant_id,
        project_id=gate_input.project_id,
        environment=gate_input.environment,
        action=gate_input.action,
        resource_reference=gate_input.resource_reference,
        fingerprint=gate_input.change_fingerprint,
        digest=gate_input.change_digest,
        is_computed=gate_input.change_digest_is_computed,
        run_id=gate_input.run_id,
        is_shadow=False,
    )


def _scope(tenant_id: uuid.UUID, gate_input: GateInput) -> AccountScope:
    return AccountScope(
        tenant_id=tenant_id,
        project_id=gate_input.project_id,
        environment=gate_input.environment,
        team=gate_input.team,
    )


def _lock_charges(decision: Decision, change: Change, gate_input: GateInput) -> Sharers:
    """Lock the family that a decision belongs to, or the charges that it would share."""
    family_id = families.find_family_id(decision.tenant_id, decision.pk)
    if family_id is not None:
        families.lock_family(decision.tenant_id, family_id)
        return Sharers(change, None, None)
    parent = gate_input.parent_decision_id
    parent_id = None if parent is None else uuid.UUID(parent)
    return Sharers(change, *charges.lock_charges(change, parent_id))


def _covered(locked: Locked, amount: Decimal) -> Decimal:
    """Return how much of an amount the change holds already."""
    if locked.held is not None:
        return locked.held.charge_held_usd
    held = locked.sharers.charge.held_usd if locked.sharers.charge else ZERO
    return held + locked.sharers.taken_usd(amount)


def _check_ceilings(locked: Locked, accounts: Accounts, fall: Waterfall) -> None:
    """Check both ceilings again, this change included.

    The enterprise ceiling stands above every approval. The plan's is lifted only where the
    decision said that it was exceeded: then that is what people were asked to approve.
    """
    exposed = accounts.exposure.used_usd(with_shadow=False)
    is_held = locked.held is not None and locked.held.own_usd > 0
    enterprise = accounts.enterprise_ceiling_usd
    if fall.is_limited(waterfall.ENTERPRISE_CEILING) or (
        is_held and enterprise is not None and exposed > enterprise
    ):
        raise CeilingExceeded("The enterprise ceiling would be passed; no approval lifts it.")
    if waterfall.PLAN_LIMIT_EXCEEDED in locked.decision.reason_codes:
        return
    if fall.is_limited(waterfall.PLAN_LIMIT) or (is_held and exposed > accounts.plan_ceiling_usd):
        raise CeilingExceeded(
            "The plan's ceiling would be passed, which the decision did not say; ask the gate again."
        )


def _hold(locked: Locked, reserved: Reserved, live: LivePolicy, at: datetime) -> date:
    own = reserved.covered_usd + reserved.overrun_usd
    lines = tuple(
        HeldLine(
            uuid.UUID(line.account_id),
            line.kind,
            # What is allowed as an overrun has lines of its own.
            reserved.covered_usd if line.kind == waterfall.EXPOSURE else line.amount_usd,
        )
        for line in reserved.fall.holds
    )
    if locked.held is not None:
        if own == 0:
            return locked.held.month
        return grow_hold(
            growth=Growth(
                tenant_id=locked.decision.tenant_id,
                decision_id=locked.decision.pk,
                held=locked.held,
                own_usd=own,
                lines=lines,
                month=month_of(at),
            )
        )
    sharers = locked.sharers
    taken = sharers.taken_usd(reserved.amount_usd)
    if sharers.charge is not None or taken > 0:
        lines = tuple(line for line in lines if line.amount_usd > 0)
    hold(
        order=HoldOrder(
            decision_id=locked.decision.pk,
            new_charge_id=new_id(),
            change=locked.change,
            charge=sharers.charge,
            parent=sharers.other_parent if taken > 0 else None,
            own_usd=own,
            taken_usd=taken,
            lines=lines,
            month=month_of(at),
            reserved_at=at,
            due_at=at + timedelta(hours=live.policy.reservations.sla_hours),
        )
    )
    return month_of(at)
