"""Bills: files that were taken, their units, and the map from sub-accounts to projects."""

from django.db import migrations, models

from valdrix.kernel import isolation

# Days that stood before there were units are their own plain rows' sums.
_UNITS_OF_DAYS = """
INSERT INTO billing_cost_unit
    (tenant_id, project_id, date, provider, billing_account_id, amount_usd, is_final,
     charge_count, ingested_at)
SELECT tenant_id, project_id, date, '', '', amount_usd, is_final, 1, ingested_at
  FROM billing_daily_cost
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_isolation"),
    ]

    operations = [
        migrations.CreateModel(
            name="CostIngestion",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                (
                    "content_sha256",
                    models.CharField(help_text="Of the file's bytes, hex.", max_length=64),
                ),
                (
                    "file_format",
                    models.CharField(
                        choices=[("focus", "focus"), ("plain", "plain")], max_length=10
                    ),
                ),
                ("size_bytes", models.BigIntegerField()),
                ("row_count", models.IntegerField()),
                (
                    "unit_count",
                    models.IntegerField(help_text="Projects' days of bills that the file names."),
                ),
                ("first_date", models.DateField()),
                ("last_date", models.DateField()),
                (
                    "total_usd",
                    models.DecimalField(
                        decimal_places=50, help_text="Exact sum of the file.", max_digits=70
                    ),
                ),
                ("ingested_at", models.DateTimeField()),
                (
                    "ingested_by",
                    models.CharField(help_text="Principal id, such as user:7.", max_length=60),
                ),
            ],
            options={
                "db_table": "billing_cost_ingestion",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant_id", "content_sha256"),
                        name="billing_cost_ingestion_once_a_file",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="CostUnit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tenant_id", models.UUIDField()),
                (
                    "provider",
                    models.CharField(
                        blank=True,
                        help_text="As the bill names it; blank: plain rows.",
                        max_length=100,
                    ),
                ),
                ("billing_account_id", models.CharField(blank=True, max_length=200)),
                ("project_id", models.CharField(max_length=200)),
                ("date", models.DateField()),
                (
                    "correction_month",
                    models.DateField(
                        help_text="The later billing month that corrects this day; null: its own bill.",
                        null=True,
                    ),
                ),
                ("amount_usd", models.DecimalField(decimal_places=50, max_digits=63)),
                ("is_final", models.BooleanField()),
                ("charge_count", models.IntegerField()),
                (
                    "ingestion_id",
                    models.UUIDField(help_text="The file; null: not from a file.", null=True),
                ),
                ("ingested_at", models.DateTimeField()),
            ],
            options={
                "db_table": "billing_cost_unit",
                "indexes": [
                    models.Index(fields=["tenant_id", "date"], name="billing_cost_unit_of_day")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "tenant_id",
                            "project_id",
                            "date",
                            "provider",
                            "billing_account_id",
                            "correction_month",
                        ),
                        name="billing_cost_unit_once",
                        nulls_distinct=False,
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("amount_usd__gt", -10000000000000), ("amount_usd__lt", 10000000000000)
                        ),
                        name="billing_cost_unit_is_a_number",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="SubAccountProject",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tenant_id", models.UUIDField()),
                ("sub_account_id", models.CharField(max_length=200)),
                ("project_id", models.CharField(max_length=200)),
            ],
            options={
                "db_table": "billing_sub_account_project",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant_id", "sub_account_id"),
                        name="billing_sub_account_one_project",
                    )
                ],
            },
        ),
        isolation.isolate("billing_cost_ingestion"),
        isolation.append_only("billing_cost_ingestion"),
        isolation.revoke("billing_cost_ingestion", "UPDATE", "DELETE", "TRUNCATE"),
        isolation.isolate("billing_cost_unit"),
        isolation.revoke("billing_cost_unit", "DELETE"),
        isolation.isolate("billing_sub_account_project"),
        migrations.RunSQL(_UNITS_OF_DAYS, migrations.RunSQL.noop),
    ]
