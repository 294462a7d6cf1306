"""What exports read of decisions as columns of their own, and the ledger's index by time."""

import django.contrib.postgres.fields
from django.db import migrations, models

# What stands is given the columns too: the trigger that refuses changes is off for this statement.
_FILL = """
ALTER TABLE enforcement_decision DISABLE TRIGGER enforcement_decision_no_change;
UPDATE enforcement_decision d
   SET tags = ARRAY(SELECT jsonb_array_elements_text(coalesce(
                  d.outcome_json::jsonb->'tags', '[]'::jsonb))),
       computed_context_version = c.context_version,
       computed_context_generated_at = c.generated_at,
       computed_context_month_start = c.month_start,
       computed_context_month_end = c.month_end,
       computed_context_month_elapsed_days = c.month_elapsed_days,
       computed_context_month_total_days = c.month_total_days,
       computed_context_observed_cost_days = c.observed_cost_days,
       computed_context_latest_cost_date = c.latest_cost_date,
       computed_context_data_source_mode = c.data_source_mode
  FROM (SELECT o.id, r.* FROM enforcement_decision o,
               jsonb_to_record(coalesce(o.context_json::jsonb->'computed', '{}'::jsonb)) AS r (
                   context_version text, generated_at timestamptz, month_start date,
                   month_end date, month_elapsed_days int, month_total_days int,
                   observed_cost_days int, latest_cost_date date, data_source_mode text)) AS c
 WHERE c.id = d.id;
ALTER TABLE enforcement_decision ENABLE ALWAYS TRIGGER enforcement_decision_no_change;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0002_isolation"),
    ]

    operations = [
        migrations.AddField(
            model_name="decision",
            name="computed_context_data_source_mode",
            field=models.CharField(max_length=20, null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_generated_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_latest_cost_date",
            field=models.DateField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_month_elapsed_days",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_month_end",
            field=models.DateField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_month_start",
            field=models.DateField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_month_total_days",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_observed_cost_days",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="computed_context_version",
            field=models.CharField(max_length=20, null=True),
        ),
        migrations.AddField(
            model_name="decision",
            name="tags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.TextField(), db_default=[], size=None
            ),
        ),
        migrations.RunSQL(_FILL, migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name="ledgerentry",
            index=models.Index(
                fields=["tenant_id", "at"], include=("sequence",), name="enforcement_ledger_moment"
            ),
        ),
    ]
