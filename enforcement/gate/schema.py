"""The gate's part of the database schema: its one read, planned once a session."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

# Amounts travel as text: a JSON number would become a float on the way.
SNAPSHOT: Final = """
CREATE FUNCTION enforcement_gate_snapshot(p_tenant uuid, p_project text, p_accounts uuid[],
    p_month date, p_since date, p_until date,
    OUT accounts json, OUT costs json, OUT tier text, OUT policy_version integer)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT (SELECT json_agg(json_build_array(a.kind, a.id, a.project_id, a.environment, a.team,
                       a.basis, a.monthly_limit_usd::text, a.pending_usd::text,
                       coalesce(m.posted_usd, 0)::text, coalesce(m.overrun_usd, 0)::text,
                       (a.shadow_pending_usd + coalesce(m.shadow_posted_usd, 0))::text,
                       a.pool, a.priority, a.expires_at, a.remaining_usd::text,
                       CASE WHEN a.basis = 'actuals' THEN billing_pending_in_costs(a.id, p_project)
                            ELSE 0 END::text) ORDER BY a.id)
              FROM billing_account a
              LEFT JOIN billing_account_month m ON m.account_id = a.id AND m.month = p_month
             WHERE a.id = ANY (p_accounts)),
           billing_daily_costs(p_project, p_since, p_until),
           (SELECT s.tier FROM billing_subscription s WHERE s.tenant_id = p_tenant),
           (SELECT max(v.number) FROM governance_policy_version v WHERE v.tenant_id = p_tenant)
      INTO accounts, costs, tier, policy_version;
END $$;
"""


def create_gate_functions() -> RunSQL:
    """Return the operation that creates them; they run with the caller's rights."""
    return RunSQL(SNAPSHOT, "DROP FUNCTION enforcement_gate_snapshot;")
