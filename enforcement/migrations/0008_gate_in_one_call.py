"""The ledger's chain with one statement an entry, and a gate's locks and reads in one call."""

from django.db import migrations

from enforcement.gate.schema import create_begin_function
from enforcement.ledger.schema import replace_ledger_functions


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0007_run_tasks"),
        ("billing", "0007_hold_in_one_pass"),
        ("governance", "0011_tenant_function"),
    ]

    operations = [
        replace_ledger_functions(),
        create_begin_function(),
        migrations.RunSQL(
            "DROP FUNCTION IF EXISTS enforcement_claim_key"
            " (uuid, text, text, text, text, uuid, timestamptz);",
            migrations.RunSQL.noop,
        ),
    ]
