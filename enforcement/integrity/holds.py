"""Invariants of charges, reservations, lines and settlements (SPEC 3.10, 5)."""

from __future__ import annotations

from typing import Final

from enforcement.integrity.domain import Invariant

# A charge that was released held, in the end, what its last members held; members that were
# released before them had left it already.
_CHARGE_HELD: Final = """
WITH part AS (
    SELECT charge_id, state, sum(own_usd + taken_usd) AS usd FROM billing_reservation
     WHERE tenant_id = %(tenant)s GROUP BY charge_id, state
)
SELECT c.id, CASE WHEN c.state = 'released' AND c.held_usd <= coalesce(p.usd, 0) THEN c.held_usd
                  ELSE coalesce(p.usd, 0) END AS expected,
       c.held_usd AS found
  FROM billing_charge c LEFT JOIN part p ON p.charge_id = c.id AND p.state = c.state
 WHERE c.tenant_id = %(tenant)s
"""
_CHARGE_OWN: Final = """
WITH part AS (
    SELECT charge_id, state, sum(own_usd) AS usd FROM billing_reservation
     WHERE tenant_id = %(tenant)s GROUP BY charge_id, state
)
SELECT c.id, CASE WHEN c.state = 'released' AND c.own_usd <= coalesce(p.usd, 0) THEN c.own_usd
                  ELSE coalesce(p.usd, 0) END AS expected,
       c.own_usd AS found
  FROM billing_charge c LEFT JOIN part p ON p.charge_id = c.id AND p.state = c.state
 WHERE c.tenant_id = %(tenant)s
"""
_CHARGE_TAKEN: Final = """
WITH child AS (
    SELECT parent_charge_id AS id, sum(taken_usd) AS ever,
           coalesce(sum(taken_usd) FILTER (WHERE state <> 'released'), 0) AS kept
      FROM billing_reservation WHERE tenant_id = %(tenant)s AND parent_charge_id IS NOT NULL
     GROUP BY parent_charge_id
)
SELECT c.id, least(c.own_usd,
                   CASE WHEN c.state <> 'active' AND c.taken_usd
                             BETWEEN coalesce(h.kept, 0) AND coalesce(h.ever, 0)
                        THEN c.taken_usd ELSE coalesce(h.kept, 0) END) AS expected,
       c.taken_usd AS found
  FROM billing_charge c LEFT JOIN child h ON h.id = c.id WHERE c.tenant_id = %(tenant)s
"""
_FAMILY_HELD: Final = """
WITH own AS (
    SELECT c.family_id, r.state, sum(r.own_usd) AS usd
      FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
     WHERE r.tenant_id = %(tenant)s AND c.tenant_id = %(tenant)s GROUP BY c.family_id, r.state
)
SELECT c.id, CASE WHEN c.family_id <> c.id THEN 0
                  WHEN c.state = 'released' AND c.family_held_usd <= coalesce(o.usd, 0)
                  THEN c.family_held_usd ELSE coalesce(o.usd, 0) END AS expected,
       c.family_held_usd AS found
  FROM billing_charge c LEFT JOIN own o ON o.family_id = c.id AND o.state = c.state
 WHERE c.tenant_id = %(tenant)s
"""
_FAMILY_FIRST: Final = """
SELECT c.id, 'its first charge' AS expected,
       CASE WHEN f.id IS NULL THEN 'no charge'
            WHEN f.family_id <> f.id THEN 'a charge of another family'
            WHEN f.is_shadow <> c.is_shadow THEN 'shadow and not shadow'
            WHEN (f.project_id, f.environment) <> (c.project_id, c.environment)
            THEN 'another project or environment'
            ELSE 'its first charge' END AS found
  FROM billing_charge c LEFT JOIN billing_charge f ON f.id = c.family_id
 WHERE c.tenant_id = %(tenant)s
"""
_FAMILY_AS_ONE: Final = """
SELECT family_id AS id, 'active or settled' AS expected,
       CASE WHEN bool_or(state = 'active') AND bool_or(state = 'settled')
            THEN 'active and settled' ELSE 'active or settled' END AS found
  FROM billing_charge WHERE tenant_id = %(tenant)s GROUP BY family_id
"""
_CHARGE_MEMBERS: Final = """
WITH member AS (
    SELECT charge_id, string_agg(DISTINCT state, ' ' ORDER BY state) AS states,
           array_agg(DISTINCT state) AS each
      FROM billing_reservation WHERE tenant_id = %(tenant)s GROUP BY charge_id
)
SELECT c.id, c.state AS expected, CASE WHEN c.state = ANY (m.each) THEN c.state
                                       ELSE m.states END AS found
  FROM billing_charge c LEFT JOIN member m ON m.charge_id = c.id WHERE c.tenant_id = %(tenant)s
"""
_RESERVATION_STATE: Final = """
SELECT r.decision_id AS id, CASE r.state WHEN 'released' THEN r.state ELSE c.state END AS expected,
       r.state AS found
  FROM billing_reservation r LEFT JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %(tenant)s
"""
# Budgets are charged alike, credits cover the rest, and the exposure stands for the whole. Where
# there is no budget nothing is covered; where a shared change found none left, credits cover all.
_RESERVATION_OWN: Final = """
WITH line AS (
    SELECT reservation_id, min(amount_usd) FILTER (WHERE kind = 'allocation') AS least,
           max(amount_usd) FILTER (WHERE kind = 'allocation') AS most,
           coalesce(sum(amount_usd)
               FILTER (WHERE kind IN ('reserved_credit', 'emergency_credit')), 0) AS credit,
           coalesce(sum(amount_usd) FILTER (WHERE kind = 'exposure'), 0) AS exposure,
           coalesce(max(amount_usd) FILTER (WHERE kind = 'overrun'), 0) AS over
      FROM billing_reservation_line WHERE tenant_id = %(tenant)s GROUP BY reservation_id
)
SELECT r.decision_id AS id, r.own_usd::text AS expected,
       CASE WHEN coalesce(l.exposure + l.over, 0) <> r.own_usd
            THEN 'exposure ' || coalesce(l.exposure + l.over, 0)
            WHEN l.least <> l.most THEN 'budgets ' || l.least || ' to ' || l.most
            WHEN l.least + l.credit + l.over <> r.own_usd
            THEN 'budgets ' || l.least || ' and credits ' || l.credit
            WHEN l.least IS NULL AND l.credit NOT IN (0, r.own_usd) THEN 'credits ' || l.credit
            ELSE r.own_usd::text END AS found
  FROM billing_reservation r LEFT JOIN line l ON l.reservation_id = r.decision_id
 WHERE r.tenant_id = %(tenant)s
"""
_TAKEN_HAS_PARENT: Final = """
SELECT r.decision_id AS id,
       CASE WHEN r.taken_usd > 0 THEN 'a charge of its family' ELSE 'none' END AS expected,
       CASE WHEN r.parent_charge_id IS NULL THEN 'none'
            WHEN p.family_id = c.family_id THEN 'a charge of its family'
            ELSE 'a charge of another family' END AS found
  FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
  LEFT JOIN billing_charge p ON p.id = r.parent_charge_id
 WHERE r.tenant_id = %(tenant)s
"""
_NO_PENDING_LINE: Final = """
SELECT l.id, CASE l.state WHEN 'pending' THEN 'posted or voided' ELSE l.state END AS expected,
       l.state AS found
  FROM billing_reservation_line l
  JOIN billing_reservation r ON r.decision_id = l.reservation_id
  JOIN billing_charge c ON c.id = r.charge_id
 WHERE l.tenant_id = %(tenant)s AND (c.state <> 'active' OR r.state <> 'active')
"""
_ACTIVE_LINES: Final = """
SELECT l.id, 'pending' AS expected, l.state AS found
  FROM billing_reservation_line l
  JOIN billing_reservation r ON r.decision_id = l.reservation_id
  JOIN billing_charge c ON c.id = r.charge_id
 WHERE l.tenant_id = %(tenant)s AND c.state = 'active' AND r.state = 'active'
"""
_LINE_POSTED: Final = """
SELECT l.id,
       CASE WHEN l.state <> 'posted' OR r.state = 'released' THEN 0
            WHEN l.kind = 'overrun' AND l.amount_usd = 0 THEN greatest(l.posted_usd, 0)
            WHEN l.kind IN ('allocation', 'exposure') THEN least(l.posted_usd, l.amount_usd)
            ELSE greatest(least(l.posted_usd, l.amount_usd), 0) END AS expected,
       l.posted_usd AS found
  FROM billing_reservation_line l JOIN billing_reservation r ON r.decision_id = l.reservation_id
 WHERE l.tenant_id = %(tenant)s
"""
_LINE_FITS: Final = """
SELECT l.id, 'its account, charge and month' AS expected,
       CASE WHEN NOT CASE l.kind WHEN 'allocation' THEN a.kind = 'budget'
                                 WHEN 'exposure' THEN a.kind = 'exposure'
                                 WHEN 'overrun' THEN a.kind IN ('budget', 'exposure')
                                 ELSE a.kind = 'grant' AND l.kind = a.pool || '_credit' END
            THEN l.kind || ' on ' || a.kind || coalesce(' ' || a.pool, '')
            WHEN l.is_shadow <> c.is_shadow THEN 'shadow and not shadow'
            WHEN l.month <> r.month THEN 'another month'
            WHEN a.tenant_id <> l.tenant_id OR r.tenant_id <> l.tenant_id THEN 'another tenant'
            ELSE 'its account, charge and month' END AS found
  FROM billing_reservation_line l
  LEFT JOIN billing_account a ON a.id = l.account_id
  LEFT JOIN billing_reservation r ON r.decision_id = l.reservation_id
  LEFT JOIN billing_charge c ON c.id = r.charge_id
 WHERE l.tenant_id = %(tenant)s
"""
_SETTLED_ONCE: Final = """
WITH family AS (
    SELECT family_id, bool_or(state = 'settled') AS is_settled,
           bool_or(state = 'active') AS is_active
      FROM billing_charge WHERE tenant_id = %(tenant)s GROUP BY family_id
), settlement AS (SELECT family_id, trigger FROM billing_settlement WHERE tenant_id = %(tenant)s)
SELECT coalesce(f.family_id, s.family_id) AS id,
       CASE WHEN f.family_id IS NULL OR f.is_active THEN 'none'
            WHEN f.is_settled AND coalesce(s.trigger, '') NOT IN ('manual', 'auto')
            THEN 'manual or auto'
            WHEN NOT f.is_settled AND s.trigger <> 'auto_release' THEN 'auto_release or none'
            ELSE coalesce(s.trigger, 'none') END AS expected,
       coalesce(s.trigger, 'none') AS found
  FROM family f FULL JOIN settlement s ON s.family_id = f.family_id
"""
# A settlement's exposure lines stand for its whole, as a reservation's do.
_SETTLEMENT_LINES: Final = """
WITH own AS (
    SELECT c.family_id, sum(r.own_usd) AS reserved
      FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
     WHERE r.tenant_id = %(tenant)s AND r.state = 'settled' GROUP BY c.family_id
), line AS (
    SELECT c.family_id, sum(l.posted_usd) FILTER (WHERE l.kind = 'exposure') AS posted,
           sum(l.posted_usd) FILTER (WHERE l.kind = 'overrun' AND a.kind = 'exposure') AS overrun
      FROM billing_reservation_line l
      JOIN billing_account a ON a.id = l.account_id
      JOIN billing_reservation r ON r.decision_id = l.reservation_id
      JOIN billing_charge c ON c.id = r.charge_id
     WHERE l.tenant_id = %(tenant)s GROUP BY c.family_id
), settled AS (
    SELECT s.*, CASE s.trigger WHEN 'auto_release' THEN s.reserved_usd
                               ELSE coalesce(o.reserved, 0.0000) END AS reserved,
           coalesce(l.posted, 0.0000) AS posted, coalesce(l.overrun, 0.0000) AS overrun
      FROM billing_settlement s LEFT JOIN own o ON o.family_id = s.family_id
      LEFT JOIN line l ON l.family_id = s.family_id WHERE s.tenant_id = %(tenant)s
)
SELECT family_id AS id,
       'reserved ' || reserved || ' posted ' || posted || ' overrun ' || overrun || ' actual '
       || CASE WHEN actual_usd <= 0 THEN actual_usd ELSE posted + overrun END
       || ' drift ' || actual_usd - reserved_usd AS expected,
       'reserved ' || reserved_usd || ' posted ' || posted_usd || ' overrun ' || overrun_usd
       || ' actual ' || actual_usd || ' drift ' || drift_usd AS found
  FROM settled
"""

INVARIANTS: Final = (
    Invariant(
        "charge_held_equals_reservations",
        "A charge holds the own and the taken parts of its members.",
        _CHARGE_HELD,
    ),
    Invariant(
        "charge_own_equals_reservations",
        "A charge's own part is the sum of its members' own parts.",
        _CHARGE_OWN,
    ),
    Invariant(
        "charge_taken_equals_children",
        "What is taken of a charge is what decisions that named it took, never more than its own.",
        _CHARGE_TAKEN,
    ),
    Invariant(
        "family_held_equals_own_parts",
        "A family's first charge keeps the sum of the family's own parts, its other charges none.",
        _FAMILY_HELD,
    ),
    Invariant(
        "family_has_its_first_charge",
        "A charge's family is a charge of the same project and environment, both shadow or not.",
        _FAMILY_FIRST,
    ),
    Invariant(
        "family_settles_as_one",
        "No charge of a family is active when another is settled.",
        _FAMILY_AS_ONE,
    ),
    Invariant(
        "charge_has_members",
        "A charge has a member in its own state.",
        _CHARGE_MEMBERS,
    ),
    Invariant(
        "reservation_state_agrees_with_charge",
        "A reservation is in the state of its charge, or was released before it.",
        _RESERVATION_STATE,
    ),
    Invariant(
        "reservation_own_equals_lines",
        "A reservation's exposure line and approved overrun are its own part; where budgets are"
        " charged, alike, they, the credits and the overrun make up the same.",
        _RESERVATION_OWN,
    ),
    Invariant(
        "taken_part_has_parent",
        "A reservation names a parent charge, of its own family, when and only when it took a part of it.",
        _TAKEN_HAS_PARENT,
    ),
    Invariant(
        "settled_family_has_no_pending_line",
        "No line of what was settled or released is pending.",
        _NO_PENDING_LINE,
    ),
    Invariant(
        "active_reservation_has_pending_lines",
        "Every line of an active reservation is pending.",
        _ACTIVE_LINES,
    ),
    Invariant(
        "line_posted_fits",
        "A line posts at most its amount, below zero only for a saving, and nothing while it is"
        " pending, when voided or when released.",
        _LINE_POSTED,
    ),
    Invariant(
        "line_fits_its_account",
        "A line's kind fits its account; it is shadow like its charge and of its"
        " reservation's month.",
        _LINE_FITS,
    ),
    Invariant(
        "settled_family_has_settlement",
        "A settled family has its settlement, an active one has none.",
        _SETTLED_ONCE,
    ),
    Invariant(
        "settlement_equals_lines",
        "A settlement's reserved, posted, overrun, actual and drift are those of its lines.",
        _SETTLEMENT_LINES,
    ),
)
