"""Families of charges: found by a decision, locked whole, read and written when they settle."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection

from billing.reservations.settlement import OpenLine, Settlement, settle
from valdrix.kernel.db import transaction_required

_FIND: Final = """
SELECT c.family_id FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %s AND r.decision_id = %s
"""
# The first charge is locked by itself and first: it is what makes one settlement of many win.
_CLAIM: Final = """
SELECT id FROM billing_charge WHERE tenant_id = %s AND id = %s FOR UPDATE SKIP LOCKED
"""
# Its charges, and the ones of other families that its members took a part of, with their first
# charges. Nothing joins a family without its first charge's lock.
_LOCK: Final = """
WITH member AS (
    SELECT r.parent_charge_id AS id FROM billing_reservation r
      JOIN billing_charge c ON c.id = r.charge_id
     WHERE c.tenant_id = %(tenant)s AND c.family_id = %(family)s AND r.state = 'active'
       AND r.parent_charge_id IS NOT NULL
), wanted AS (
    SELECT c.id FROM billing_charge c
     WHERE c.tenant_id = %(tenant)s AND c.family_id = %(family)s
    UNION SELECT id FROM member
    UNION SELECT c.family_id FROM billing_charge c JOIN member ON member.id = c.id)
SELECT id FROM billing_charge WHERE id IN (SELECT id FROM wanted)
 ORDER BY (id <> family_id), id FOR UPDATE
"""
_FIRST: Final = """
SELECT id, state, is_shadow, project_id, environment,
       -- The first charge may have been released; what was confirmed are the others.
       (SELECT max(c.confirmed_at) FROM billing_charge c
         WHERE c.tenant_id = f.tenant_id AND c.family_id = f.id AND c.state = 'active')
  FROM billing_charge f WHERE tenant_id = %s AND id = %s
"""
# A released decision gives back what it took; a settled one has spent it.
_GIVE_BACK: Final = """
UPDATE billing_charge p SET taken_usd = p.taken_usd - t.taken
  FROM (SELECT r.parent_charge_id AS id, sum(r.taken_usd) AS taken FROM billing_reservation r
          JOIN billing_charge c ON c.id = r.charge_id
         WHERE c.tenant_id = %(tenant)s AND c.family_id = %(family)s AND r.state = 'active'
           AND r.parent_charge_id IS NOT NULL GROUP BY r.parent_charge_id) AS t
 WHERE p.id = t.id
"""
_MEMBERS: Final = """
SELECT r.decision_id FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %s AND c.family_id = %s AND r.state = 'active' ORDER BY r.decision_id
"""
_ACCOUNTS: Final = """
SELECT DISTINCT l.account_id FROM billing_reservation_line l
  JOIN billing_reservation r ON r.decision_id = l.reservation_id
  JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %s AND c.family_id = %s AND r.state = 'active' AND l.state = 'pending'
"""
_LOCK_ACCOUNTS: Final = """
SELECT id FROM billing_account WHERE tenant_id = %s AND id = ANY(%s) ORDER BY id FOR UPDATE
"""
_LINES: Final = """
SELECT l.id, r.decision_id, r.own_usd, l.account_id, l.kind, l.position, l.amount_usd, l.month,
       coalesce(CASE WHEN l.is_shadow THEN m.shadow_posted_usd ELSE m.posted_usd END, 0)
  FROM billing_reservation_line l
  JOIN billing_reservation r ON r.decision_id = l.reservation_id
  JOIN billing_charge c ON c.id = r.charge_id
  LEFT JOIN billing_account_month m ON m.account_id = l.account_id AND m.month = l.month
 WHERE r.tenant_id = %s AND c.family_id = %s AND r.state = 'active' AND l.state = 'pending'
 ORDER BY r.decision_id, l.position
"""
# A charge of which every member waits was not applied with the others.
_CONFIRM: Final = """
UPDATE billing_charge c SET confirmed_at = %(at)s
 WHERE c.tenant_id = %(tenant)s AND c.family_id = %(family)s AND c.state = 'active'
   AND c.confirmed_at IS NULL
   AND EXISTS (SELECT 1 FROM billing_reservation r
                WHERE r.charge_id = c.id AND r.state = 'active'
                  AND r.decision_id <> ALL(%(waiting)s))
"""
_PROLONG: Final = """
UPDATE billing_reservation r SET due_at = greatest(r.due_at, r.reserved_at + %s * interval '1 hour')
  FROM billing_charge c
 WHERE c.id = r.charge_id AND r.tenant_id = %s AND c.family_id = %s AND r.state = 'active'
"""
_POST_LINES: Final = """
UPDATE billing_reservation_line l
   SET state = CASE WHEN s.posted = 0 AND l.amount_usd > 0 THEN 'voided' ELSE 'posted' END,
       posted_usd = s.posted
  FROM unnest(%(lines)s::bigint[], %(posted)s::numeric[]) AS s (id, posted)
 WHERE l.id = s.id AND l.state = 'pending'
"""
# Two steps: a proposed row is checked before its conflict is found, and a saving's is negative.
_OPEN_MONTHS: Final = """
INSERT INTO billing_account_month
    (account_id, tenant_id, month, posted_usd, overrun_usd, shadow_posted_usd)
SELECT DISTINCT account, %(tenant)s::uuid, month, 0, 0, 0
  FROM unnest(%(accounts)s::uuid[], %(months)s::date[]) AS s (account, month)
ON CONFLICT DO NOTHING
"""
_POST_MONTHS: Final = """
UPDATE billing_account_month m
   SET posted_usd = m.posted_usd + s.posted, overrun_usd = m.overrun_usd + s.overrun,
       shadow_posted_usd = m.shadow_posted_usd + s.shadow
  FROM (SELECT account, month, sum(posted) AS posted, sum(overrun) AS overrun,
               sum(shadow) AS shadow
          FROM unnest(%(accounts)s::uuid[], %(months)s::date[], %(posted)s::numeric[],
                      %(overruns)s::numeric[], %(shadows)s::numeric[])
               AS t (account, month, posted, overrun, shadow) GROUP BY account, month) AS s
 WHERE m.account_id = s.account AND m.month = s.month
"""
_RELEASE_ACCOUNTS: Final = """
UPDATE billing_account a
   SET pending_usd = a.pending_usd - s.pending,
       shadow_pending_usd = a.shadow_pending_usd - s.shadow,
       reserved_usd = a.reserved_usd - s.credit,
       consumed_usd = a.consumed_usd + s.consumed,
       remaining_usd = a.remaining_usd + s.credit - s.consumed
  FROM (SELECT id, sum(pending) AS pending, sum(shadow) AS shadow, sum(credit) AS credit,
               sum(consumed) AS consumed
          FROM unnest(%(accounts)s::uuid[], %(pending)s::numeric[], %(shadows)s::numeric[],
                      %(credits)s::numeric[], %(consumed)s::numeric[])
               AS t (id, pending, shadow, credit, consumed) GROUP BY id) AS s
 WHERE a.id = s.id
"""
_OVERRUN_LINES: Final = """
INSERT INTO billing_reservation_line (reservation_id, tenant_id, account_id, kind, is_shadow,
    state, position, amount_usd, posted_usd, month)
SELECT o.decision, %(tenant)s, o.account, 'overrun', %(shadow)s, 'posted', 1000 + o.place, 0,
       o.amount, o.month
  FROM unnest(%(decisions)s::uuid[], %(accounts)s::uuid[], %(months)s::date[],
              %(amounts)s::numeric[]) WITH ORDINALITY AS o (decision, account, month, amount, place)
"""
_CLOSE: Final = """
WITH charge AS (
    UPDATE billing_charge SET state = %(state)s
     WHERE tenant_id = %(tenant)s AND family_id = %(family)s AND state = 'active' RETURNING id)
UPDATE billing_reservation SET state = %(state)s
 WHERE charge_id IN (SELECT id FROM charge) AND state = 'active'
"""

_MEMBER_PARTS: Final = """
WITH part AS (
    SELECT charge_id, sum(own_usd) AS own, sum(own_usd + taken_usd) AS held
      FROM billing_reservation
     WHERE tenant_id = %(tenant)s AND decision_id = ANY(%(decisions)s) AND state = 'active'
     GROUP BY charge_id)
SELECT bool_and(c.taken_usd - coalesce(leaving.taken, 0) <= c.own_usd - part.own)
  FROM billing_charge c JOIN part ON part.charge_id = c.id
  LEFT JOIN (SELECT parent_charge_id AS id, sum(taken_usd) AS taken FROM billing_reservation
              WHERE tenant_id = %(tenant)s AND decision_id = ANY(%(decisions)s)
                AND state = 'active' GROUP BY parent_charge_id) AS leaving ON leaving.id = c.id
"""
# Whoever is left without a line gets empty ones on the accounts that were let go: what is spent
# in the end has a place to be posted to.
_INHERIT: Final = """
INSERT INTO billing_reservation_line (reservation_id, tenant_id, account_id, kind, is_shadow,
    state, position, amount_usd, posted_usd, month)
SELECT r.decision_id, r.tenant_id, l.account, l.kind, %(shadow)s, 'pending', l.position, 0, 0,
       r.month
  FROM billing_reservation r,
       unnest(%(accounts)s::uuid[], %(kinds)s::text[]) WITH ORDINALITY AS l (account, kind, position)
 WHERE r.tenant_id = %(tenant)s AND r.decision_id = %(heir)s
"""
_LEAVE: Final = """
WITH part AS (
    SELECT charge_id, sum(own_usd) AS own, sum(own_usd + taken_usd) AS held
      FROM billing_reservation
     WHERE tenant_id = %(tenant)s AND decision_id = ANY(%(decisions)s) AND state = 'active'
     GROUP BY charge_id
), left_charge AS (
    UPDATE billing_charge c SET held_usd = c.held_usd - part.held, own_usd = c.own_usd - part.own,
           state = CASE WHEN EXISTS (
                SELECT 1 FROM billing_reservation r WHERE r.charge_id = c.id AND r.state = 'active'
                   AND r.decision_id <> ALL(%(decisions)s)) THEN c.state ELSE 'released' END
      FROM part WHERE c.id = part.charge_id)
UPDATE billing_reservation SET state = 'released'
 WHERE tenant_id = %(tenant)s AND decision_id = ANY(%(decisions)s) AND state = 'active'
"""
_LEAVE_PARENTS: Final = """
UPDATE billing_charge p SET taken_usd = p.taken_usd - t.taken
  FROM (SELECT parent_charge_id AS id, sum(taken_usd) AS taken FROM billing_reservation
         WHERE tenant_id = %(tenant)s AND decision_id = ANY(%(decisions)s) AND state = 'active'
           AND parent_charge_id IS NOT NULL GROUP BY parent_charge_id) AS t
 WHERE p.id = t.id
"""
_LEAVE_FAMILY: Final = """
UPDATE billing_charge SET family_held_usd = family_held_usd - %(own)s WHERE id = %(family)s
"""

_CREDITS: Final = ("reserved_credit", "emergency_credit")
_OVERRUN: Final = "overrun"


@dataclass(frozen=True, slots=True)
class Family:
    """One locked family: where it belongs, and which decisions are its active members."""

    family_id: uuid.UUID
    state: str
    is_shadow: bool
    project_id: str
    environment: str
    confirmed_at: datetime | None
    decision_ids: tuple[uuid.UUID, ...]


def find_family_id(tenant_id: uuid.UUID, decision_id: uuid.UUID) -> uuid.UUID | None:
    """Return the family that a decision's reservation belongs to, or None when it holds nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [tenant_id, decision_id])
        row = cursor.fetchone()
    return None if row is None else row[0]


def lock_family(
    tenant_id: uuid.UUID, family_id: uuid.UUID, *, skip_locked: bool = False
) -> Family | None:
    """Lock every charge of a family; None only when ``skip_locked`` and another holds it.

    :param skip_locked: leave a family that another worker is settling to that worker.
    """
    transaction_required()
    with connection.cursor() as cursor:
        if skip_locked:
            cursor.execute(_CLAIM, [tenant_id, family_id])
            if cursor.fetchone() is None:
                return None
        cursor.execute(_LOCK, {"tenant": tenant_id, "family": family_id})
        cursor.execute(_FIRST, [tenant_id, family_id])
        row = cursor.fetchone()
        if row is None:
            return None
        cursor.execute(_MEMBERS, [tenant_id, family_id])
        members = tuple(member for (member,) in cursor.fetchall())
    first, state, is_shadow, project_id, environment, confirmed_at = row
    return Family(
        family_id=first,
        state=state,
        is_shadow=is_shadow,
        project_id=project_id,
        environment=environment,
        confirmed_at=confirmed_at,
        decision_ids=members,
    )


def lock_open_lines(tenant_id: uuid.UUID, family_id: uuid.UUID) -> list[OpenLine]:
    """Lock the accounts of a family, in primary-key order, and return its pending lines.

    The family's charges are locked already, so that its lines cannot change; they are read
    after the accounts are locked, because what their months have posted can.
    """
    transaction_required()
    with connection.cursor() as cursor:
        cursor.execute(_ACCOUNTS, [tenant_id, family_id])
        account_ids = [account_id for (account_id,) in cursor.fetchall()]
        cursor.execute(_LOCK_ACCOUNTS, [tenant_id, account_ids])
        cursor.execute(_LINES, [tenant_id, family_id])
        return [OpenLine(*row) for row in cursor.fetchall()]


def confirm_family(
    *, tenant_id: uuid.UUID, family_id: uuid.UUID, waiting: Sequence[uuid.UUID], at: datetime
) -> bool:
    """Mark a locked family as applied; return False when it was marked before.

    :param waiting: members that nobody has approved; a charge of theirs alone is left unmarked.
    """
    transaction_required()
    names: dict[str, Any] = {"tenant": tenant_id, "family": family_id, "at": at}
    with connection.cursor() as cursor:
        cursor.execute(_CONFIRM, {**names, "waiting": list(waiting)})
        return bool(cursor.rowcount)


def can_leave(tenant_id: uuid.UUID, decision_ids: Sequence[uuid.UUID]) -> bool:
    """Tell whether members of a locked family could be released: no other leans on their parts."""
    names: dict[str, Any] = {"tenant": tenant_id, "decisions": list(decision_ids)}
    with connection.cursor() as cursor:
        cursor.execute(_MEMBER_PARTS, names)
        (is_free,) = cursor.fetchone()
    # Where none of them holds anything, nothing is leaned on.
    return is_free is not False


def prolong_family(*, tenant_id: uuid.UUID, family_id: uuid.UUID, hours: int) -> None:
    """Let no active reservation of a locked family be due sooner than this after its start."""
    transaction_required()
    with connection.cursor() as cursor:
        cursor.execute(_PROLONG, [hours, tenant_id, family_id])


class LinesMoved(RuntimeError):
    """A pending line was settled by somebody else under our locks: a defect, nothing is kept."""


def write_settlement(
    *, tenant_id: uuid.UUID, family: Family, settlement: Settlement, state: str
) -> None:
    """Write what becomes of a family's lines, months, accounts and charges; all are locked.

    :param state: ``settled`` or ``released``.
    :raises LinesMoved: when a line was not pending any more; nothing is kept.
    """
    transaction_required()
    lines = settlement.lines
    with connection.cursor() as cursor:
        cursor.execute(
            _POST_LINES,
            {
                "lines": [one.line.line_id for one in lines],
                "posted": [one.posted_usd for one in lines],
            },
        )
        if cursor.rowcount != len(lines):
            raise LinesMoved(f"{cursor.rowcount} of {len(lines)} lines were pending")
        if settlement.overruns:
            cursor.execute(_OVERRUN_LINES, _overrun_columns(tenant_id, family, settlement))
        months = _month_columns(tenant_id, family, settlement)
        cursor.execute(_OPEN_MONTHS, months)
        cursor.execute(_POST_MONTHS, months)
        cursor.execute(_RELEASE_ACCOUNTS, _account_columns(family, settlement))
        if state == "released":
            cursor.execute(_GIVE_BACK, {"tenant": tenant_id, "family": family.family_id})
        cursor.execute(_CLOSE, {"tenant": tenant_id, "family": family.family_id, "state": state})


def _overrun_columns(
    tenant_id: uuid.UUID, family: Family, settlement: Settlement
) -> dict[str, Any]:
    return {
        "tenant": tenant_id,
        "shadow": family.is_shadow,
        "decisions": [one.decision_id for one in settlement.overruns],
        "accounts": [one.account_id for one in settlement.overruns],
        "months": [one.month for one in settlement.overruns],
        "amounts": [one.amount_usd for one in settlement.overruns],
    }


def _month_columns(tenant_id: uuid.UUID, family: Family, settlement: Settlement) -> dict[str, Any]:
    """Return what each account's month gains; credit lines post to their grant, not to a month."""
    none = Decimal(0)
    rows: list[tuple[uuid.UUID, date, Decimal, Decimal, Decimal]] = []
    for one in settlement.lines:
        if one.line.kind in _CREDITS and not family.is_shadow:
            continue
        if one.line.kind == _OVERRUN:
            # It counts in its month since it was approved; what was not spent of it leaves.
            excess = one.posted_usd - one.line.amount_usd
            rows.append((one.line.account_id, one.line.month, none, excess, none))
            continue
        posted, shadow = (none, one.posted_usd) if family.is_shadow else (one.posted_usd, none)
        rows.append((one.line.account_id, one.line.month, posted, none, shadow))
    for over in settlement.overruns:
        overrun, shadow = (none, over.amount_usd) if family.is_shadow else (over.amount_usd, none)
        rows.append((over.account_id, over.month, none, overrun, shadow))
    return {
        "tenant": tenant_id,
        **_columns(rows, ("accounts", "months", "posted", "overruns", "shadows")),
    }


def _account_columns(family: Family, settlement: Settlement) -> dict[str, Any]:
    none = Decimal(0)
    rows = []
    for one in settlement.lines:
        amount, posted = one.line.amount_usd, one.posted_usd
        if one.line.kind == _OVERRUN:
            continue
        if family.is_shadow:
            rows.append((one.line.account_id, none, amount, none, none))
        elif one.line.kind in _CREDITS:
            rows.append((one.line.account_id, none, none, amount, posted))
        else:
            rows.append((one.line.account_id, amount, none, none, none))
    return _columns(rows, ("accounts", "pending", "shadows", "credits", "consumed"))


def _columns(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def release_members(
    *, tenant_id: uuid.UUID, family: Family, decision_ids: Sequence[uuid.UUID]
) -> bool:
    """Release only what these decisions of a locked family hold themselves (SPEC 3.10).

    :return: False, and nothing is changed, when other decisions lean on a part that would go:
        then the family is settled as a whole, when its time is over.
    :raises LinesMoved: when a line was not pending any more; nothing is kept.
    """
    transaction_required()
    pending = lock_open_lines(tenant_id, family.family_id)
    lines = [line for line in pending if line.decision_id in decision_ids]
    names: dict[str, Any] = {
        "tenant": tenant_id,
        "decisions": list(decision_ids),
        "family": family.family_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(_MEMBER_PARTS, names)
        if not cursor.fetchone()[0]:
            return False
        released = settle(lines, actual_usd=Decimal(0))
        cursor.execute(
            _POST_LINES,
            {
                "lines": [one.line.line_id for one in released.lines],
                "posted": [one.posted_usd for one in released.lines],
            },
        )
        if cursor.rowcount != len(released.lines):
            raise LinesMoved(f"{cursor.rowcount} of {len(released.lines)} lines were pending")
        cursor.execute(_RELEASE_ACCOUNTS, _account_columns(family, released))
        if any(line.kind == _OVERRUN for line in lines):
            cursor.execute(_POST_MONTHS, _month_columns(tenant_id, family, released))
        cursor.execute(_LEAVE_PARENTS, names)
        cursor.execute(_LEAVE, names)
        cursor.execute(_LEAVE_FAMILY, {**names, "own": released.reserved_usd})
    if len(lines) == len(pending):
        _inherit(tenant_id, family, lines, decision_ids)
    return True


def _inherit(
    tenant_id: uuid.UUID,
    family: Family,
    lines: Sequence[OpenLine],
    released: Sequence[uuid.UUID],
) -> None:
    """Give the oldest member that is left empty lines in the place of all that were released."""
    heir = min((one for one in family.decision_ids if one not in released), default=None)
    if heir is None:
        return
    places = {
        line.account_id: line.kind for line in lines if line.kind not in (*_CREDITS, _OVERRUN)
    }
    with connection.cursor() as cursor:
        cursor.execute(
            _INHERIT,
            {
                "tenant": tenant_id,
                "heir": heir,
                "shadow": family.is_shadow,
                "accounts": list(places),
                "kinds": list(places.values()),
            },
        )
