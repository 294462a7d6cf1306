"""A gate reads one row of costs."""

from django.db import migrations

from enforcement.gate.schema import create_begin_function, create_gate_functions


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0008_gate_in_one_call"), ("billing", "0009_cost_history")]

    operations = [
        migrations.RunSQL(
            "DROP FUNCTION enforcement_gate_snapshot;"
            "DROP FUNCTION billing_daily_costs(text, date, date);",
            migrations.RunSQL.noop,
        ),
        create_gate_functions(),
        create_begin_function(),
    ]
