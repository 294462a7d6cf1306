"""Writes of reservations: the charge, the decision's part of it, its lines and kept totals."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Final

from django.db import connection

from billing.reservations.domain import HoldOrder
from billing.reservations.models import EMERGENCY_CREDIT, RESERVED_CREDIT
from valdrix.kernel.db import transaction_required

_CREDIT_KINDS: Final = (RESERVED_CREDIT, EMERGENCY_CREDIT)

_OPEN_CHARGE: Final = """
INSERT INTO billing_charge (id, tenant_id, family_id, is_shadow, state, project_id, environment,
    action, resource_reference, change_fingerprint, change_digest, change_is_computed, run_id,
    held_usd, own_usd, taken_usd, family_held_usd, opened_at)
VALUES (%(id)s, %(tenant)s, %(family)s, %(shadow)s, 'active', %(project)s, %(environment)s,
    %(action)s, %(reference)s, %(fingerprint)s, %(digest)s, %(computed)s, %(run)s,
    %(held)s, %(own)s, 0, %(family_held)s, %(at)s)
"""

_JOIN_CHARGE: Final = """
UPDATE billing_charge SET held_usd = held_usd + %(held)s, own_usd = own_usd + %(own)s,
       -- A stage with a computed digest names the change for later runs.
       change_fingerprint = CASE WHEN %(adopts)s THEN %(fingerprint)s ELSE change_fingerprint END,
       change_digest = CASE WHEN %(adopts)s THEN %(digest)s ELSE change_digest END,
       change_is_computed = change_is_computed OR %(adopts)s
 WHERE id = %(id)s
"""

_RESERVE: Final = """
WITH reservation AS (
    INSERT INTO billing_reservation (decision_id, tenant_id, charge_id, parent_charge_id, state,
        own_usd, taken_usd, month, reserved_at, due_at)
    VALUES (%(decision)s, %(tenant)s, %(charge)s, %(parent)s, 'active', %(own)s, %(taken)s,
        %(month)s, %(at)s, %(due)s)
), line AS (
    INSERT INTO billing_reservation_line (reservation_id, tenant_id, account_id, kind, is_shadow,
        state, position, amount_usd, posted_usd, month)
    SELECT %(decision)s, %(tenant)s, l.account, l.kind, %(shadow)s, 'pending', l.position,
           l.amount, 0, %(month)s
      FROM unnest(%(accounts)s::uuid[], %(kinds)s::text[], %(amounts)s::numeric[])
           WITH ORDINALITY AS l (account, kind, amount, position)
), parent AS (
    UPDATE billing_charge SET taken_usd = taken_usd + %(taken)s
     WHERE id = %(parent)s AND %(taken)s > 0
)
UPDATE billing_account a
   SET pending_usd = a.pending_usd + d.pending, shadow_pending_usd = a.shadow_pending_usd + d.shadow,
       remaining_usd = a.remaining_usd - d.credit, reserved_usd = a.reserved_usd + d.credit
  FROM unnest(%(accounts)s::uuid[], %(pending)s::numeric[], %(shadows)s::numeric[],
              %(credits)s::numeric[]) AS d (id, pending, shadow, credit)
 WHERE a.id = d.id AND d.pending + d.shadow + d.credit > 0
"""

_FAMILY: Final = """
UPDATE billing_charge SET family_held_usd = family_held_usd + %s WHERE id = %s
"""


class AccountsMoved(RuntimeError):
    """A locked account was not there to be charged: a defect, never a legal state."""


def hold(*, order: HoldOrder) -> None:
    """Reserve what a decision holds; the accounts and charges it names are already locked.

    :raises NotInTransaction: outside the decision's transaction.
    :raises AccountsMoved: when a line's account was not updated; nothing is kept.
    :raises django.db.IntegrityError: when a kept total would break a constraint, likewise.
    """
    transaction_required()
    charge_id = order.charge.charge_id if order.charge else order.new_charge_id
    if order.charge is None:
        _open_charge(order)
    else:
        _join_charge(order)
    parts = _parts(order)
    charged = sum(1 for line in order.lines if line.amount_usd > 0)
    with connection.cursor() as cursor:
        cursor.execute(
            _RESERVE,
            {
                "decision": order.decision_id,
                "tenant": order.change.tenant_id,
                "charge": charge_id,
                "parent": order.parent.charge_id if order.parent else None,
                "own": order.own_usd,
                "taken": order.taken_usd,
                "month": order.month,
                "at": order.reserved_at,
                "due": order.due_at,
                "shadow": order.change.is_shadow,
                "accounts": [line.account_id for line in order.lines],
                "kinds": [line.kind for line in order.lines],
                "amounts": [line.amount_usd for line in order.lines],
                "pending": [part[0] for part in parts],
                "shadows": [part[1] for part in parts],
                "credits": [part[2] for part in parts],
            },
        )
        if cursor.rowcount != charged:
            raise AccountsMoved(f"{cursor.rowcount} of {charged} accounts were charged")
        if order.own_usd > 0 and (order.charge or order.parent):
            cursor.execute(_FAMILY, [order.own_usd, _family_id(order)])


def _parts(order: HoldOrder) -> list[tuple[Decimal, Decimal, Decimal]]:
    """Return for each line what it adds to pending, to shadow pending, and takes of a grant."""
    none = Decimal(0)
    parts = []
    for line in order.lines:
        if order.change.is_shadow:
            parts.append((none, line.amount_usd, none))
        elif line.kind in _CREDIT_KINDS:
            parts.append((none, none, line.amount_usd))
        else:
            parts.append((line.amount_usd, none, none))
    return parts


def _family_id(order: HoldOrder) -> uuid.UUID:
    if order.charge is not None:
        return order.charge.family_id
    return order.parent.family_id if order.parent else order.new_charge_id


def _open_charge(order: HoldOrder) -> None:
    change = order.change
    with connection.cursor() as cursor:
        cursor.execute(
            _OPEN_CHARGE,
            {
                "id": order.new_charge_id,
                "tenant": change.tenant_id,
                "family": _family_id(order),
                "shadow": change.is_shadow,
                "project": change.project_id,
                "environment": change.environment,
                "action": change.action,
                "reference": change.resource_reference,
                "fingerprint": change.fingerprint,
                "digest": change.digest,
                "computed": change.is_computed,
                "run": change.run_id,
                "held": order.own_usd + order.taken_usd,
                "own": order.own_usd,
                "family_held": order.own_usd if order.parent is None else Decimal(0),
                "at": order.reserved_at,
            },
        )


def _join_charge(order: HoldOrder) -> None:
    assert order.charge is not None
    change = order.change
    with connection.cursor() as cursor:
        cursor.execute(
            _JOIN_CHARGE,
            {
                "id": order.charge.charge_id,
                "held": order.own_usd + order.taken_usd,
                "own": order.own_usd,
                "adopts": change.is_computed and not order.charge.change_is_computed,
                "fingerprint": change.fingerprint,
                "digest": change.digest,
            },
        )
