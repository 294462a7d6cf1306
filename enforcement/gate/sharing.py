"""One change, one charge: what earlier decisions already hold for a question (SPEC 3.10)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db import connection

from billing.reservations import queries as charges
from billing.reservations.domain import Change, ChargeState
from enforcement.gate.decision import SHADOW, Sharing
from enforcement.gate.inputs import GateInput
from governance.policies.governing import GoverningPolicy
from valdrix.kernel.db import Rows
from valdrix.kernel.money import ZERO

# What nobody has approved, or what was approved and is not spent yet, cannot let another question
# through; a shadow hold would still be waiting in hard mode, where nobody was asked.
_READ_SHARED: Final = """
SELECT (SELECT family_held_usd FROM billing_charge
         WHERE tenant_id = %(tenant)s AND id = %(family)s),
       EXISTS (SELECT 1 FROM billing_reservation r
                 JOIN enforcement_decision d ON d.id = r.decision_id
                 LEFT JOIN governance_approval a ON a.id = d.approval_request_id
                WHERE r.charge_id = ANY(%(charges)s) AND r.state = 'active'
                  AND (r.own_usd > 0 OR r.taken_usd > 0)
                  AND (d.would_have_been = 'REQUIRE_APPROVAL'
                       OR (d.decision = 'REQUIRE_APPROVAL'
                           AND a.status IS DISTINCT FROM 'consumed')))
"""


@dataclass(frozen=True, slots=True)
class Sharers:
    """The charges that a change may share: its own, and the named parent's.

    The same change shares all that its charge holds; a named parent is shared up to what no
    other decision has taken of it, each part once.
    """

    change: Change
    charge: ChargeState | None
    parent: ChargeState | None

    @property
    def other_parent(self) -> ChargeState | None:
        """Return the parent's charge unless it is the change's own, or of another family.

        A change that has a charge already belongs to that charge's family: what it took of another
        one would be held there, and settled there without it.
        """
        if self.parent is None or self.charge is None:
            return self.parent
        if self.parent.charge_id == self.charge.charge_id:
            return None
        return self.parent if self.parent.family_id == self.charge.family_id else None

    @property
    def parent_has_room(self) -> bool:
        """Tell whether the named parent has anything left to share."""
        if self.parent is None:
            return False
        if self.charge is not None and self.parent.charge_id == self.charge.charge_id:
            return True
        return self.other_parent is not None and self.parent.unspent_usd > 0

    def taken_usd(self, amount: Decimal) -> Decimal:
        """Return what of an amount the parent covers, beyond what the change itself holds."""
        parent = self.other_parent
        if parent is None:
            return ZERO
        held = self.charge.held_usd if self.charge else ZERO
        return min(max(ZERO, amount - held), parent.unspent_usd)


def build_change(tenant_id: uuid.UUID, gate_input: GateInput, governing: GoverningPolicy) -> Change:
    """Return what is being changed, as charges know it."""
    mode = governing.mode(gate_input.source, gate_input.environment).mode
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
        is_shadow=mode == SHADOW,
        closes_run=gate_input.stage == "post_apply",
    )


def lock_sharers(
    change: Change, parent_decision_id: str | None, *, rows: Rows | None = None
) -> Sharers:
    """Lock the change's own names, then the charges that it may share, in that order.

    :param rows: the charges that a call sent ahead has locked.
    """
    parent = _identity(parent_decision_id)
    return Sharers(change, *charges.lock_charges(change, parent, rows=rows))


def find_sharers(change: Change, parent_decision_id: str | None) -> Sharers:
    """Return what :func:`lock_sharers` would, without locking: for dry runs."""
    return Sharers(change, *charges.find_charges(change, _identity(parent_decision_id)))


def _identity(text: str | None) -> uuid.UUID | None:
    return None if text is None else uuid.UUID(text)


def read_sharing(sharers: Sharers, *, amount: Decimal) -> Sharing | None:
    """Return what of an amount needs no new reservation, or None when nothing is shared."""
    parent = sharers.other_parent if sharers.taken_usd(amount) > 0 else None
    shared = sharers.charge or parent
    if shared is None:
        return None
    held = sharers.charge.held_usd if sharers.charge else ZERO
    leaned_on = [charge.charge_id for charge in (sharers.charge, parent) if charge is not None]
    with connection.cursor() as cursor:
        cursor.execute(
            _READ_SHARED,
            {
                "tenant": sharers.change.tenant_id,
                "family": shared.family_id,
                "charges": leaned_on,
            },
        )
        family_held, awaits_approval = cursor.fetchone()
    return Sharing(
        charge_id=str(shared.charge_id),
        family_id=str(shared.family_id),
        covered_usd=held + sharers.taken_usd(amount),
        family_held_usd=family_held,
        awaits_approval=awaits_approval,
    )
