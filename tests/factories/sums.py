"""Kept totals against the sums of their lines, for one tenant."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connection

from enforcement.ledger.domain import ChainVerifier
from enforcement.ledger.queries import find_head, stream_entries
from valdrix.kernel.db import reading

_DIFFERENCES = """
WITH line AS (
    SELECT account_id,
           sum(amount_usd) FILTER (
               WHERE state = 'pending' AND NOT is_shadow AND kind <> 'overrun') AS pending,
           sum(amount_usd) FILTER (WHERE state = 'pending' AND is_shadow) AS shadow
      FROM billing_reservation_line WHERE tenant_id = %(tenant)s GROUP BY account_id)
SELECT a.kind, a.id, a.pending_usd, a.reserved_usd, a.shadow_pending_usd, l.pending, l.shadow
  FROM billing_account a LEFT JOIN line l ON l.account_id = a.id
 WHERE a.tenant_id = %(tenant)s
   AND (coalesce(l.shadow, 0) <> a.shadow_pending_usd
     OR coalesce(l.pending, 0) <> CASE a.kind WHEN 'grant' THEN a.reserved_usd
                                              ELSE a.pending_usd END
     OR a.total_usd <> a.remaining_usd + a.reserved_usd + a.consumed_usd)
"""
_MONTHS = """
WITH line AS (
    SELECT account_id, month,
           coalesce(sum(posted_usd) FILTER (WHERE NOT is_shadow AND kind <> 'overrun'), 0) AS posted,
           coalesce(sum(CASE state WHEN 'pending' THEN amount_usd ELSE posted_usd END)
               FILTER (WHERE NOT is_shadow AND kind = 'overrun'), 0) AS overrun,
           coalesce(sum(posted_usd) FILTER (WHERE is_shadow), 0) AS shadow
      FROM billing_reservation_line l
     WHERE tenant_id = %(tenant)s AND (is_shadow OR kind IN ('allocation', 'exposure', 'overrun'))
     GROUP BY account_id, month)
SELECT coalesce(l.account_id, m.account_id), m.posted_usd, m.overrun_usd, m.shadow_posted_usd,
       l.posted, l.overrun, l.shadow
  FROM line l FULL JOIN (SELECT * FROM billing_account_month WHERE tenant_id = %(tenant)s) m
    ON m.account_id = l.account_id AND m.month = l.month
 WHERE coalesce(m.posted_usd, 0) <> coalesce(l.posted, 0)
    OR coalesce(m.overrun_usd, 0) <> coalesce(l.overrun, 0)
    OR coalesce(m.shadow_posted_usd, 0) <> coalesce(l.shadow, 0)
"""
_CONSUMED = """
WITH line AS (
    SELECT account_id, sum(posted_usd) AS posted FROM billing_reservation_line
     WHERE tenant_id = %(tenant)s AND NOT is_shadow GROUP BY account_id)
SELECT a.id, a.consumed_usd FROM billing_account a LEFT JOIN line l ON l.account_id = a.id
 WHERE a.tenant_id = %(tenant)s AND a.kind = 'grant' AND a.consumed_usd <> coalesce(l.posted, 0)
"""
# Each reservation is read a fixed number of times, however many charges there are.
_CHARGES = """
WITH part AS (
    SELECT charge_id, sum(own_usd) AS own, sum(own_usd + taken_usd) AS held
      FROM billing_reservation WHERE tenant_id = %(tenant)s AND state = 'active' GROUP BY charge_id
), taken AS (
    SELECT parent_charge_id AS charge_id, sum(taken_usd) AS usd FROM billing_reservation
     WHERE tenant_id = %(tenant)s AND state <> 'released' AND parent_charge_id IS NOT NULL
     GROUP BY parent_charge_id
), family AS (
    SELECT c.family_id, sum(p.own) AS own FROM billing_charge c JOIN part p ON p.charge_id = c.id
     WHERE c.tenant_id = %(tenant)s GROUP BY c.family_id)
SELECT c.id, c.held_usd, c.taken_usd, c.family_held_usd FROM billing_charge c
  LEFT JOIN part p ON p.charge_id = c.id
  LEFT JOIN taken t ON t.charge_id = c.id
  LEFT JOIN family f ON f.family_id = c.id
 WHERE c.tenant_id = %(tenant)s AND c.state = 'active' AND (
       c.held_usd <> coalesce(p.held, 0) OR c.own_usd <> coalesce(p.own, 0)
    OR c.taken_usd <> coalesce(t.usd, 0) OR c.taken_usd > c.own_usd
    OR (c.family_id = c.id AND c.family_held_usd <> coalesce(f.own, 0)))
"""


def find_differences(tenant_id: uuid.UUID) -> list[Any]:
    """Return every account and charge of a tenant whose kept totals are not their sums."""
    with reading(tenant_id), connection.cursor() as cursor:
        cursor.execute(_DIFFERENCES, {"tenant": tenant_id})
        rows = cursor.fetchall()
        for sql in (_MONTHS, _CONSUMED, _CHARGES):
            cursor.execute(sql, {"tenant": tenant_id})
            rows += cursor.fetchall()
        return rows


def check_chain(tenant_id: uuid.UUID) -> int:
    """Verify a tenant's ledger against its head; return how many entries it has."""
    with reading(tenant_id):
        verifier = ChainVerifier(tenant_id)
        for entry, columns in stream_entries(tenant_id):
            fault = verifier.check(entry, columns)
            assert fault is None, fault
        assert find_head(tenant_id) == verifier.head
        return verifier.head.sequence
