"""Costs' part of the database schema: a month's cost history, kept so that a gate reads one row.

The functions run with the caller's rights, so that row-level security holds inside them.
"""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from billing.costs.domain import HISTORY_DAYS

HISTORY_OF_DAYS: Final = f"""
SELECT coalesce(string_agg(c.date || ' ' || c.amount_usd || CASE WHEN c.is_final THEN ' final'
                           ELSE ' open' END, ',' ORDER BY c.date), '')
  FROM billing_daily_cost c
 WHERE c.tenant_id = h.tenant_id AND c.project_id = h.project_id
   AND c.date >= h.month - {HISTORY_DAYS - 1} AND c.date < h.month + interval '1 month'
"""
"""What ``billing_cost_history h`` keeps of the days that a gate in its month can look at."""

MONTHS_OF_DAYS: Final = f"""
SELECT DISTINCT d.project_id, month::date AS month
  FROM days d, generate_series(date_trunc('month', d.date::timestamp),
                               d.date::timestamp + interval '{HISTORY_DAYS - 1} days',
                               interval '1 month') AS month
"""
"""The months in which a gate can look at some ``days (project_id, date)``."""

_CREATE: Final = f"""
-- The rows are locked before the days are read: of two that change days of one month, the second
-- reads what the first has committed. The caller holds the locks of all days that it changes.
CREATE FUNCTION billing_keep_cost_history(p_tenant uuid, p_projects text[], p_dates date[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO billing_cost_history (tenant_id, project_id, month, days)
    WITH days AS (SELECT * FROM unnest(p_projects, p_dates) AS d (project_id, date)),
         months AS ({MONTHS_OF_DAYS})
    SELECT p_tenant, m.project_id, m.month, '' FROM months m
     ORDER BY m.project_id COLLATE "C", m.month
    ON CONFLICT (tenant_id, project_id, month) DO NOTHING;

    PERFORM 1
       FROM billing_cost_history h
      WHERE h.tenant_id = p_tenant AND (h.project_id, h.month) IN (
            WITH days AS (SELECT * FROM unnest(p_projects, p_dates) AS d (project_id, date))
            {MONTHS_OF_DAYS})
      ORDER BY h.project_id COLLATE "C", h.month FOR UPDATE OF h;

    UPDATE billing_cost_history h SET days = ({HISTORY_OF_DAYS})
     WHERE h.tenant_id = p_tenant AND (h.project_id, h.month) IN (
           WITH days AS (SELECT * FROM unnest(p_projects, p_dates) AS d (project_id, date))
           {MONTHS_OF_DAYS});
END $$;

-- NULL: the cost store failed, which never blocks a gate (SPEC 3.4).
CREATE FUNCTION billing_cost_days(p_project text, p_month date) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(
        (SELECT h.days FROM billing_cost_history h
          WHERE h.tenant_id = valdrix_current_tenant() AND h.project_id = p_project
            AND h.month = p_month), '');
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the cost history is unavailable: %', SQLERRM;
    RETURN NULL;
END $$;
"""
_DROP: Final = """
DROP FUNCTION billing_keep_cost_history(uuid, text[], date[]);
DROP FUNCTION billing_cost_days(text, date);
"""
KEEP_ALL: Final = f"""
INSERT INTO billing_cost_history (tenant_id, project_id, month, days)
WITH months AS (
    SELECT DISTINCT d.tenant_id, m.project_id, m.month
      FROM (SELECT DISTINCT tenant_id FROM billing_daily_cost) d,
           LATERAL (WITH days AS (SELECT c.project_id, c.date FROM billing_daily_cost c
                                   WHERE c.tenant_id = d.tenant_id) {MONTHS_OF_DAYS}) m)
SELECT h.tenant_id, h.project_id, h.month, ({HISTORY_OF_DAYS}) FROM months h
"""
"""Keeps the history of days that were there before it was kept, of all tenants at once."""


def create_history_functions() -> list[RunSQL]:
    """Return the operations that create them and keep what days there are already."""
    return [RunSQL(_CREATE, _DROP), RunSQL(KEEP_ALL, RunSQL.noop)]
