"""A month's cost history in one row a project, which is what a gate reads."""

from django.db import migrations, models

from billing.costs.schema import create_history_functions
from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_plan_of_a_caller")]

    operations = [
        migrations.CreateModel(
            name="CostHistory",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tenant_id", models.UUIDField()),
                ("project_id", models.CharField(max_length=200)),
                ("month", models.DateField(help_text="Its first day.")),
                (
                    "days",
                    models.TextField(
                        blank=True,
                        help_text="In date order, such as 2026-11-01 12.3400 final,2026-11-02 9.0000 open.",
                    ),
                ),
            ],
            options={
                "db_table": "billing_cost_history",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant_id", "project_id", "month"),
                        name="billing_cost_history_once_a_month",
                    )
                ],
            },
        ),
        isolation.isolate("billing_cost_history"),
        *create_history_functions(),
    ]
