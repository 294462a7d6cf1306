"""The controls' part of the database schema: a page of budgets from one function, planned once a session."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from billing.accounts.domain import ACTUALS, BUDGET
from billing.accounts.schema import BUDGETS
from valdrix.kernel.rows import ONE_PLAN

CREATE: Final = f"""
CREATE OR REPLACE FUNCTION enforcement_budgets_page
    (tenant uuid, projects text[], after uuid, most integer, of_month date, today date) RETURNS json
LANGUAGE plpgsql STABLE {ONE_PLAN} AS $$
BEGIN
    RETURN (SELECT coalesce(json_agg(json_build_array({BUDGETS.sql("a")}, m.posted_usd, m.overrun_usd,
           CASE WHEN a.basis = '{ACTUALS}' THEN (
                SELECT sum(c.amount_usd) FROM billing_daily_cost c
                 WHERE c.tenant_id = tenant AND c.project_id = a.project_id
                   AND c.date BETWEEN of_month AND today) END,
           (SELECT json_agg(json_build_array(b.level_percent, b.raised_at) ORDER BY b.level_percent)
              FROM billing_budget_alert b
             WHERE b.tenant_id = tenant AND b.account_id = a.id AND b.month = of_month)
           ) ORDER BY a.id), '[]') FROM (
        SELECT * FROM billing_account q
         WHERE q.tenant_id = tenant AND q.kind = '{BUDGET}'
           AND coalesce(q.project_id = ANY (projects), true)
           AND q.id > after ORDER BY q.id LIMIT most) AS a
      LEFT JOIN billing_account_month m ON m.account_id = a.id AND m.month = of_month);
END $$;
"""


def create_budgets_page() -> RunSQL:
    """Return the operation that creates it; it runs with the caller's rights."""
    return RunSQL(CREATE, "DROP FUNCTION enforcement_budgets_page;")
