"""Writes of reservations: the charge, the decision's part of it, its lines and kept totals."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Final

import msgspec
from django.db import DatabaseError

from billing.reservations.domain import HoldOrder
from billing.reservations.models import CREDIT_KINDS
from valdrix.kernel.db import Call, Together, call_now, sqlstate_of

_HOLD: Final = "SELECT billing_hold_all(%s::jsonb)"
_ACCOUNTS_MOVED: Final = "VX007"


class AccountsMoved(RuntimeError):
    """A locked account was not there to be charged: a defect, never a legal state."""


def hold(*, order: HoldOrder, together: Together | None = None) -> None:
    """Reserve what a decision holds; the accounts and charges it names are already locked.

    :param together: what the write is sent with, at the end of the transaction.
    :raises NotInTransaction: outside the decision's transaction.
    :raises AccountsMoved: when a line's account was not updated; nothing is kept.
    :raises django.db.IntegrityError: when a kept total would break a constraint, likewise.
    """
    if together is not None:
        together.later(hold_call(order))
        return
    try:
        call_now(hold_call(order))
    except DatabaseError as error:
        if sqlstate_of(error) != _ACCOUNTS_MOVED:
            raise
        raise AccountsMoved("a locked account was not charged") from error


def hold_call(order: HoldOrder) -> Call:
    """Return the write of :func:`hold` as a call to be sent with others."""
    change, lines, parts = order.change, order.lines, _parts(order)
    document = {
        "opens": order.charge is None,
        "charge": order.charge.charge_id if order.charge else order.new_charge_id,
        "family": _family_id(order),
        "parent": order.parent.charge_id if order.parent else None,
        "tenant": change.tenant_id,
        "decision": order.decision_id,
        "shadow": change.is_shadow,
        "project": change.project_id,
        "environment": change.environment,
        "action": change.action,
        "reference": change.resource_reference,
        "fingerprint": change.fingerprint,
        "digest": change.digest,
        "computed": change.is_computed,
        "run": change.run_id,
        "adopts": _adopts(order),
        "own": order.own_usd,
        "taken": order.taken_usd,
        "month": order.month,
        "at": order.reserved_at,
        "due": order.due_at,
        "accounts": [line.account_id for line in lines],
        "kinds": [line.kind for line in lines],
        "amounts": [line.amount_usd for line in lines],
        "pending": [part[0] for part in parts],
        "shadows": [part[1] for part in parts],
        "credits": [part[2] for part in parts],
    }
    return _HOLD, msgspec.json.encode(document).decode()


def _adopts(order: HoldOrder) -> bool:
    """Tell whether a charge that was opened without a computed digest takes this one's."""
    charge = order.charge
    return charge is not None and order.change.is_computed and not charge.change_is_computed


def _parts(order: HoldOrder) -> list[tuple[Decimal, Decimal, Decimal]]:
    """Return for each line what it adds to pending, to shadow pending, and takes of a grant."""
    none = Decimal(0)
    parts = []
    for line in order.lines:
        if order.change.is_shadow:
            parts.append((none, line.amount_usd, none))
        elif line.kind in CREDIT_KINDS:
            parts.append((none, none, line.amount_usd))
        else:
            parts.append((line.amount_usd, none, none))
    return parts


def _family_id(order: HoldOrder) -> uuid.UUID:
    if order.charge is not None:
        return order.charge.family_id
    return order.parent.family_id if order.parent else order.new_charge_id
