"""Holding what people approved: a hold that grows, and the overrun that no account covers.

A reservation's own part is what its accounts cover plus the overrun that an approval allowed. The
overrun is a pending line on each budget and on the exposure, and counts in their month at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection

from billing.reservations.domain import HeldLine
from billing.reservations.models import EMERGENCY_CREDIT, RESERVED_CREDIT
from billing.reservations.operations import AccountsMoved
from valdrix.kernel.db import transaction_required
from valdrix.kernel.problems import Refused

_CREDIT_KINDS: Final = (RESERVED_CREDIT, EMERGENCY_CREDIT)

_FIND: Final = """
SELECT r.state, r.own_usd, c.id, c.family_id, c.held_usd, r.month
  FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %s AND r.decision_id = %s
"""
# What a decision's charge would hold if others left it now.
_FIRM: Final = """
SELECT c.held_usd - coalesce((
           SELECT sum(l.own_usd + l.taken_usd) FROM billing_reservation l
            WHERE l.tenant_id = r.tenant_id AND l.charge_id = c.id AND l.state = 'active'
              AND l.decision_id = ANY(%(leaving)s)), 0)
  FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %(tenant)s AND r.decision_id = %(decision)s AND r.state = 'active'
"""
_GROW_RESERVATION: Final = """
UPDATE billing_reservation SET own_usd = own_usd + %(own)s,
       month = CASE WHEN own_usd = 0 THEN %(month)s ELSE month END
 WHERE tenant_id = %(tenant)s AND decision_id = %(decision)s AND state = 'active'
RETURNING month
"""
# Lines without an amount move to the month in which they get one.
_GROW_LINES: Final = """
UPDATE billing_reservation_line l SET month = %(month)s, amount_usd = l.amount_usd + coalesce(
       (SELECT g.amount FROM unnest(%(accounts)s::uuid[], %(kinds)s::text[], %(amounts)s::numeric[])
               AS g (account, kind, amount) WHERE g.account = l.account_id AND g.kind = l.kind), 0)
 WHERE l.reservation_id = %(decision)s AND l.state = 'pending'
"""
_ADD_LINES: Final = """
INSERT INTO billing_reservation_line (reservation_id, tenant_id, account_id, kind, is_shadow,
    state, position, amount_usd, posted_usd, month)
SELECT %(decision)s, %(tenant)s, g.account, g.kind, false, 'pending', e.last + g.place, g.amount, 0,
       %(month)s
  FROM unnest(%(accounts)s::uuid[], %(kinds)s::text[], %(amounts)s::numeric[])
       WITH ORDINALITY AS g (account, kind, amount, place),
       (SELECT coalesce(max(position), 0) AS last FROM billing_reservation_line
         WHERE reservation_id = %(decision)s) AS e
 WHERE NOT EXISTS (SELECT 1 FROM billing_reservation_line l
                    WHERE l.reservation_id = %(decision)s AND l.account_id = g.account
                      AND l.kind = g.kind)
"""
_CHARGE_ACCOUNTS: Final = """
UPDATE billing_account a
   SET pending_usd = a.pending_usd + d.pending, remaining_usd = a.remaining_usd - d.credit,
       reserved_usd = a.reserved_usd + d.credit
  FROM unnest(%(accounts)s::uuid[], %(pending)s::numeric[], %(credits)s::numeric[])
       AS d (id, pending, credit)
 WHERE a.id = d.id AND d.pending + d.credit > 0
"""
_GROW_CHARGE: Final = """
UPDATE billing_charge SET held_usd = held_usd + %(own)s, own_usd = own_usd + %(own)s
 WHERE id = %(charge)s
"""
_GROW_FAMILY: Final = """
UPDATE billing_charge SET family_held_usd = family_held_usd + %(own)s WHERE id = %(family)s
"""
_ALLOCATIONS: Final = """
SELECT count(DISTINCT amount_usd) FROM billing_reservation_line
 WHERE reservation_id = %s AND kind = 'allocation' AND state = 'pending'
"""
_KEEP: Final = """
UPDATE billing_reservation SET due_at = greatest(due_at, %s)
 WHERE tenant_id = %s AND decision_id = ANY(%s) AND state = 'active'
"""
_OVERRUN_LINES: Final = """
INSERT INTO billing_reservation_line (reservation_id, tenant_id, account_id, kind, is_shadow,
    state, position, amount_usd, posted_usd, month, approval_request_id)
SELECT %(decision)s, %(tenant)s, account, 'overrun', false, 'pending', 500 + place, %(over)s, 0,
       %(month)s, %(approval)s
  FROM unnest(%(accounts)s::uuid[]) WITH ORDINALITY AS o (account, place)
"""
_OVERRUN_MONTHS: Final = """
INSERT INTO billing_account_month AS m
    (account_id, tenant_id, month, posted_usd, overrun_usd, shadow_posted_usd)
SELECT account, %(tenant)s, %(month)s, 0, %(over)s, 0 FROM unnest(%(accounts)s::uuid[]) AS account
ON CONFLICT (account_id, month) DO UPDATE SET overrun_usd = m.overrun_usd + excluded.overrun_usd
"""


class BudgetsMoved(Refused):
    """The budgets of a hold are others than when it was made; the gate has to be asked anew (409)."""

    code = "approval_not_applicable"


@dataclass(frozen=True, slots=True)
class HeldState:
    """A decision's reservation as it stands under the locks of its family; US dollars a month."""

    state: str
    own_usd: Decimal
    charge_id: uuid.UUID
    family_id: uuid.UUID
    charge_held_usd: Decimal
    month: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """By what a decision's hold grows; accounts and charges are locked.

    :ivar own_usd: the whole increase: what the lines cover, and the overrun.
    """

    tenant_id: uuid.UUID
    decision_id: uuid.UUID
    held: HeldState
    own_usd: Decimal
    lines: tuple[HeldLine, ...]
    month: date


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedOverrun:
    """An overrun that an approval allows a decision: the same on each budget and the exposure."""

    tenant_id: uuid.UUID
    decision_id: uuid.UUID
    approval_id: uuid.UUID
    account_ids: tuple[uuid.UUID, ...]
    amount_usd: Decimal
    month: date


def find_held(tenant_id: uuid.UUID, decision_id: uuid.UUID) -> HeldState | None:
    """Return what a decision's reservation holds, or None when it never had one."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [tenant_id, decision_id])
        row = cursor.fetchone()
    return None if row is None else HeldState(*row)


def find_firm_usd(
    tenant_id: uuid.UUID, decision_id: uuid.UUID, *, leaving: Collection[uuid.UUID]
) -> Decimal | None:
    """Return what a decision's charge would hold without some others, or None when it holds nothing.

    :param leaving: decisions whose own and taken parts do not count.
    """
    names: dict[str, Any] = {"tenant": tenant_id, "decision": decision_id}
    with connection.cursor() as cursor:
        cursor.execute(_FIRM, {**names, "leaving": list(leaving)})
        row = cursor.fetchone()
    return None if row is None else row[0]


def grow_hold(*, growth: Growth) -> date:
    """Let a decision's own hold grow; return the month that it posts to.

    :raises BudgetsMoved: when it would charge its budgets unequally; nothing is kept.
    :raises AccountsMoved: when a line's account was not updated; nothing is kept.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    zero = Decimal(0)
    from_grants = [line.amount_usd if line.kind in _CREDIT_KINDS else zero for line in growth.lines]
    pending = [zero if line.kind in _CREDIT_KINDS else line.amount_usd for line in growth.lines]
    names: dict[str, Any] = {
        "tenant": growth.tenant_id,
        "decision": growth.decision_id,
        "charge": growth.held.charge_id,
        "family": growth.held.family_id,
        "own": growth.own_usd,
        "month": growth.month,
        "accounts": [line.account_id for line in growth.lines],
        "kinds": [line.kind for line in growth.lines],
        "amounts": [line.amount_usd for line in growth.lines],
        "pending": pending,
        "credits": from_grants,
    }
    charged = sum(1 for line in growth.lines if line.amount_usd > 0)
    with connection.cursor() as cursor:
        cursor.execute(_GROW_RESERVATION, names)
        month: date = cursor.fetchone()[0]
        names["month"] = month
        cursor.execute(_GROW_LINES, names)
        cursor.execute(_ADD_LINES, names)
        cursor.execute(_ALLOCATIONS, [growth.decision_id])
        if cursor.fetchone()[0] > 1:
            raise BudgetsMoved("The budgets changed since; ask the gate again.")
        cursor.execute(_CHARGE_ACCOUNTS, names)
        if cursor.rowcount != charged:
            raise AccountsMoved(f"{cursor.rowcount} of {charged} accounts were charged")
        cursor.execute(_GROW_CHARGE, names)
        cursor.execute(_GROW_FAMILY, names)
    return month


def keep_until(*, tenant_id: uuid.UUID, decision_ids: Sequence[uuid.UUID], at: datetime) -> None:
    """Let no hold of these decisions come due before a moment; their family is locked.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, [at, tenant_id, list(decision_ids)])


def allow_overrun(*, overrun: ApprovedOverrun) -> None:
    """Write an overrun that an approval allows, and count it in its month.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    names: dict[str, Any] = {
        "tenant": overrun.tenant_id,
        "decision": overrun.decision_id,
        "approval": overrun.approval_id,
        "accounts": list(overrun.account_ids),
        "over": overrun.amount_usd,
        "month": overrun.month,
    }
    with connection.cursor() as cursor:
        cursor.execute(_OVERRUN_LINES, names)
        cursor.execute(_OVERRUN_MONTHS, names)
