"""What a decision holds and shares, before it is written. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Change:
    """What is being changed, by which charges are found and shared (SPEC 3.10).

    :ivar is_computed: True when Valdrix took the digest itself; a declared digest shares
        nothing across runs.
    :ivar is_shadow: shadow charges share with shadow ones only.
    :ivar closes_run: the run's last stage asks, after it was applied: only that stage still shares
        a reservation that is confirmed.
    """

    tenant_id: uuid.UUID
    project_id: str
    environment: str
    action: str
    resource_reference: str
    fingerprint: str
    digest: str | None
    is_computed: bool
    run_id: str | None
    is_shadow: bool
    closes_run: bool = False

    def lock_names(self) -> tuple[str, ...]:
        """Return the names whose lock makes look-up and charge of this change one step."""
        names = []
        if self.is_computed:
            names.append(f"change:{self.fingerprint}")
        if self.run_id is not None:
            names.append(f"run:{self.run_id}")
        return tuple(names)


@dataclass(frozen=True, slots=True)
class ChargeState:
    """A charge as it stood under its lock; amounts in US dollars a month."""

    charge_id: uuid.UUID
    family_id: uuid.UUID
    held_usd: Decimal
    own_usd: Decimal
    taken_usd: Decimal
    change_is_computed: bool

    @property
    def unspent_usd(self) -> Decimal:
        """Return what a decision that names this charge's decision can still take of it.

        What the charge took of its own parent is not its to give: each part is shared once.
        """
        return max(Decimal("0.0000"), self.own_usd - self.taken_usd)


@dataclass(frozen=True, slots=True)
class HeldLine:
    """One line to write: how much of which account, in burn order."""

    account_id: uuid.UUID
    kind: str
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """Everything that one decision's reservation is written from.

    :ivar charge: the same change's charge that it joins, or None to open one.
    :ivar parent: the charge that it takes ``taken_usd`` of, or None.
    :ivar own_usd: this decision's own increase: the sum that its lines cover.
    """

    decision_id: uuid.UUID
    new_charge_id: uuid.UUID
    change: Change
    charge: ChargeState | None
    parent: ChargeState | None
    own_usd: Decimal
    taken_usd: Decimal
    lines: tuple[HeldLine, ...]
    month: date
    reserved_at: datetime
    due_at: datetime
