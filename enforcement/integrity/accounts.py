"""Invariants of accounts: kept totals are the sums of their lines (SPEC 5)."""

from __future__ import annotations

from typing import Final

from billing.costs.schema import HISTORY_OF_DAYS, MONTHS_OF_DAYS
from enforcement.integrity.domain import Invariant

_GRANT_ADDS_UP: Final = """
SELECT id, total_usd::text AS expected,
       CASE WHEN remaining_usd < 0 OR reserved_usd < 0 OR consumed_usd < 0
            THEN 'a part below zero'
            ELSE (remaining_usd + reserved_usd + consumed_usd)::text END AS found
  FROM billing_account WHERE tenant_id = %(tenant)s AND kind = 'grant'
"""
_GRANT_RESERVED: Final = """
SELECT a.id, coalesce(sum(l.amount_usd), 0) AS expected, a.reserved_usd AS found
  FROM billing_account a
  LEFT JOIN billing_reservation_line l ON l.account_id = a.id AND l.tenant_id = %(tenant)s
        AND l.state = 'pending' AND NOT l.is_shadow
 WHERE a.tenant_id = %(tenant)s AND a.kind = 'grant' GROUP BY a.id
"""
_GRANT_CONSUMED: Final = """
SELECT a.id, coalesce(sum(l.posted_usd), 0) AS expected, a.consumed_usd AS found
  FROM billing_account a
  LEFT JOIN billing_reservation_line l ON l.account_id = a.id AND l.tenant_id = %(tenant)s
        AND l.state = 'posted' AND NOT l.is_shadow
 WHERE a.tenant_id = %(tenant)s AND a.kind = 'grant' GROUP BY a.id
"""
_ACCOUNT_PENDING: Final = """
SELECT a.id, coalesce(sum(l.amount_usd)
              FILTER (WHERE a.kind <> 'grant' AND l.kind <> 'overrun'), 0) AS expected,
       a.pending_usd AS found
  FROM billing_account a
  LEFT JOIN billing_reservation_line l ON l.account_id = a.id AND l.tenant_id = %(tenant)s
        AND l.state = 'pending' AND NOT l.is_shadow
 WHERE a.tenant_id = %(tenant)s GROUP BY a.id
"""
_ACCOUNT_SHADOW_PENDING: Final = """
SELECT a.id, coalesce(sum(l.amount_usd), 0) AS expected, a.shadow_pending_usd AS found
  FROM billing_account a
  LEFT JOIN billing_reservation_line l ON l.account_id = a.id AND l.tenant_id = %(tenant)s
        AND l.state = 'pending' AND l.is_shadow
 WHERE a.tenant_id = %(tenant)s GROUP BY a.id
"""
_MONTH_POSTED: Final = """
WITH line AS (
    SELECT account_id, month, sum(posted_usd) AS usd FROM billing_reservation_line
     WHERE tenant_id = %(tenant)s AND NOT is_shadow AND kind IN ('allocation', 'exposure')
     GROUP BY account_id, month
), kept AS (SELECT * FROM billing_account_month WHERE tenant_id = %(tenant)s)
SELECT coalesce(k.account_id, l.account_id) || ' ' || coalesce(k.month, l.month) AS id,
       coalesce(l.usd, 0) AS expected, coalesce(k.posted_usd, 0) AS found
  FROM kept k FULL JOIN line l ON l.account_id = k.account_id AND l.month = k.month
"""
_MONTH_OVERRUN: Final = """
WITH line AS (
    SELECT account_id, month,
           sum(CASE state WHEN 'pending' THEN amount_usd ELSE posted_usd END) AS usd
      FROM billing_reservation_line
     WHERE tenant_id = %(tenant)s AND NOT is_shadow AND kind = 'overrun'
     GROUP BY account_id, month
), kept AS (SELECT * FROM billing_account_month WHERE tenant_id = %(tenant)s)
SELECT coalesce(k.account_id, l.account_id) || ' ' || coalesce(k.month, l.month) AS id,
       coalesce(l.usd, 0) AS expected, coalesce(k.overrun_usd, 0) AS found
  FROM kept k FULL JOIN line l ON l.account_id = k.account_id AND l.month = k.month
"""
_MONTH_SHADOW: Final = """
WITH line AS (
    SELECT account_id, month, sum(posted_usd) AS usd FROM billing_reservation_line
     WHERE tenant_id = %(tenant)s AND is_shadow GROUP BY account_id, month
), kept AS (SELECT * FROM billing_account_month WHERE tenant_id = %(tenant)s)
SELECT coalesce(k.account_id, l.account_id) || ' ' || coalesce(k.month, l.month) AS id,
       coalesce(l.usd, 0) AS expected, coalesce(k.shadow_posted_usd, 0) AS found
  FROM kept k FULL JOIN line l ON l.account_id = k.account_id AND l.month = k.month
"""
# The newest entry says what people last decided that an account may take.
_ACCOUNT_ON_LEDGER: Final = """
WITH entry AS (
    SELECT DISTINCT ON (subject_id) subject_id, amount_usd FROM enforcement_ledger_entry
     WHERE tenant_id = %(tenant)s
       AND event IN ('budget_created', 'budget_changed', 'credit_granted')
     ORDER BY subject_id, sequence DESC
), account AS (
    SELECT id::text, CASE kind WHEN 'grant' THEN total_usd ELSE monthly_limit_usd END AS usd
      FROM billing_account WHERE tenant_id = %(tenant)s AND kind IN ('budget', 'grant')
)
SELECT coalesce(a.id, e.subject_id) AS id, e.amount_usd AS expected, a.usd AS found
  FROM account a FULL JOIN entry e ON e.subject_id = a.id
"""
_MONEY_IS_A_NUMBER: Final = """
WITH amounts (id, usd) AS (
    SELECT 'account ' || id, ARRAY[pending_usd, shadow_pending_usd, total_usd, remaining_usd,
           reserved_usd, consumed_usd, coalesce(monthly_limit_usd, 0)]
      FROM billing_account WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT 'month ' || account_id || ' ' || month, ARRAY[posted_usd, overrun_usd,
           shadow_posted_usd] FROM billing_account_month WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT 'charge ' || id, ARRAY[held_usd, own_usd, taken_usd, family_held_usd]
      FROM billing_charge WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT 'reservation ' || decision_id, ARRAY[own_usd, taken_usd]
      FROM billing_reservation WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT 'line ' || id, ARRAY[amount_usd, posted_usd]
      FROM billing_reservation_line WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT 'settlement ' || id, ARRAY[reserved_usd, actual_usd, posted_usd, overrun_usd, drift_usd]
      FROM billing_settlement WHERE tenant_id = %(tenant)s
)
SELECT id, 'numbers' AS expected,
       CASE WHEN 'NaN' = ANY (usd) THEN 'NaN' ELSE 'numbers' END AS found FROM amounts
"""
_DAILY_COST_IS_A_NUMBER: Final = """
SELECT project_id || ' ' || date AS id, 'a number' AS expected,
       CASE amount_usd WHEN 'NaN' THEN 'NaN' ELSE 'a number' END AS found
  FROM billing_daily_cost WHERE tenant_id = %(tenant)s
"""
_COST_HISTORY_EQUALS_DAYS: Final = f"""
WITH days AS (SELECT project_id, date FROM billing_daily_cost WHERE tenant_id = %(tenant)s),
months AS (
    SELECT project_id, month FROM billing_cost_history WHERE tenant_id = %(tenant)s
    UNION {MONTHS_OF_DAYS}
)
SELECT h.project_id || ' ' || h.month AS id, ({HISTORY_OF_DAYS}) AS expected, k.days AS found
  FROM (SELECT %(tenant)s::uuid AS tenant_id, m.project_id, m.month FROM months m) h
  LEFT JOIN billing_cost_history k USING (tenant_id, project_id, month)
"""  # noqa: S608 - constants

INVARIANTS: Final = (
    Invariant(
        "grant_adds_up",
        "A grant's total is what remains, is reserved and is consumed; no part is below zero.",
        _GRANT_ADDS_UP,
    ),
    Invariant(
        "grant_reserved_equals_pending_lines",
        "What is reserved of a grant is the sum of its pending lines.",
        _GRANT_RESERVED,
    ),
    Invariant(
        "grant_consumed_equals_posted_lines",
        "What is consumed of a grant is what its posted lines posted.",
        _GRANT_CONSUMED,
    ),
    Invariant(
        "account_pending_equals_lines",
        "What is pending on a budget or the exposure is the sum of its pending lines, overruns apart.",
        _ACCOUNT_PENDING,
    ),
    Invariant(
        "account_shadow_pending_equals_lines",
        "What is pending in shadow on an account is the sum of its pending shadow lines.",
        _ACCOUNT_SHADOW_PENDING,
    ),
    Invariant(
        "month_posted_equals_lines",
        "What an account posted in a month is the sum of its lines of that month.",
        _MONTH_POSTED,
    ),
    Invariant(
        "month_overrun_equals_lines",
        "An account's overrun in a month is the sum of its overrun lines of that month, approved"
        " ones that are pending included.",
        _MONTH_OVERRUN,
    ),
    Invariant(
        "month_shadow_equals_lines",
        "What an account posted in shadow in a month is the sum of its shadow lines.",
        _MONTH_SHADOW,
    ),
    Invariant(
        "account_equals_ledger",
        "A budget's limit and a grant's total are what the ledger last said, and none is missing.",
        _ACCOUNT_ON_LEDGER,
    ),
    Invariant(
        "money_is_a_number",
        "No amount of an account, charge, reservation, line or settlement is NaN.",
        _MONEY_IS_A_NUMBER,
    ),
    Invariant(
        "daily_cost_is_a_number",
        "No daily cost is NaN.",
        _DAILY_COST_IS_A_NUMBER,
    ),
    Invariant(
        "cost_history_equals_days",
        "What gates read of a project's costs in a month is what its days are.",
        _COST_HISTORY_EQUALS_DAYS,
    ),
)
