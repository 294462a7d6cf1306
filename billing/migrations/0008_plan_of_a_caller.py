"""The plan that comes with the look-up of a credential is the tenant's tier."""

from django.db import migrations

_PLAN_OF = """
CREATE OR REPLACE FUNCTION governance_plan_of(p_tenant uuid) RETURNS text
LANGUAGE sql STABLE AS $$ {body} $$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_hold_in_one_pass"),
        ("governance", "0012_plan_of_a_caller"),
    ]

    operations = [
        migrations.RunSQL(
            _PLAN_OF.format(
                body="SELECT s.tier::text FROM billing_subscription s WHERE s.tenant_id = p_tenant"
            ),
            _PLAN_OF.format(body="SELECT NULL::text"),
        )
    ]
