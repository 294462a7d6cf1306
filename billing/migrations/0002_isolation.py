"""Row-level security on every table of money."""

from django.db import migrations

from valdrix.kernel import isolation

_COSTS = """
CREATE FUNCTION billing_daily_costs(p_project text, p_since date, p_until date) RETURNS json
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- Amounts travel as text: a JSON number would become a float on the way.
    RETURN coalesce(
        (SELECT json_agg(json_build_array(c.date, c.amount_usd::text, c.is_final) ORDER BY c.date)
           FROM billing_daily_cost c
          WHERE c.tenant_id = valdrix_current_tenant() AND c.project_id = p_project
            AND c.date BETWEEN p_since AND p_until),
        '[]'::json);
EXCEPTION WHEN OTHERS THEN
    -- A failing cost store never blocks a gate; NULL says so (SPEC 3.4).
    RAISE WARNING 'daily costs are unavailable: %', SQLERRM;
    RETURN NULL;
END $$;

CREATE FUNCTION billing_pending_in_costs(p_account uuid, p_project text) RETURNS numeric
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- What was confirmed up to the newest cost date is in the costs already (SPEC 5).
    RETURN (
        SELECT coalesce(sum(l.amount_usd), 0)
          FROM billing_reservation_line l
          JOIN billing_reservation r ON r.decision_id = l.reservation_id
          JOIN billing_charge c ON c.id = r.charge_id
         WHERE l.account_id = p_account AND l.state = 'pending' AND NOT l.is_shadow
           AND c.confirmed_at < (
                SELECT (max(d.date) + 1)::timestamp AT TIME ZONE 'UTC' FROM billing_daily_cost d
                 WHERE d.tenant_id = valdrix_current_tenant() AND d.project_id = p_project));
EXCEPTION WHEN OTHERS THEN
    -- Counting a line twice is the strict side.
    RAISE WARNING 'pending lines in costs are unknown: %', SQLERRM;
    RETURN 0;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial"), ("governance", "0002_isolation")]

    operations = [
        isolation.isolate("billing_account"),
        isolation.isolate("billing_account_month"),
        isolation.isolate("billing_charge"),
        isolation.isolate("billing_reservation"),
        isolation.isolate("billing_reservation_line"),
        isolation.isolate("billing_settlement"),
        isolation.append_only("billing_settlement"),
        isolation.isolate("billing_daily_cost"),
        isolation.isolate("billing_subscription"),
        migrations.RunSQL(
            _COSTS,
            "DROP FUNCTION billing_daily_costs(text, date, date);"
            "DROP FUNCTION billing_pending_in_costs(uuid, text);",
        ),
        isolation.revoke("billing_account", "DELETE"),
        isolation.revoke("billing_account_month", "DELETE"),
        isolation.revoke("billing_charge", "DELETE"),
        isolation.revoke("billing_reservation", "DELETE"),
        isolation.revoke("billing_reservation_line", "DELETE"),
        isolation.revoke("billing_settlement", "UPDATE", "DELETE", "TRUNCATE"),
    ]
