"""Budget alerts: append-only, each budget, month and level once."""

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0003_costs"),
    ]

    operations = [
        migrations.CreateModel(
            name="BudgetAlert",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("project_id", models.CharField(max_length=200)),
                ("month", models.DateField(help_text="The month's first day.")),
                ("level_percent", models.PositiveSmallIntegerField()),
                ("used_usd", models.DecimalField(decimal_places=4, max_digits=19)),
                ("limit_usd", models.DecimalField(decimal_places=4, max_digits=17)),
                ("raised_at", models.DateTimeField()),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="alerts",
                        to="billing.account",
                    ),
                ),
            ],
            options={
                "db_table": "billing_budget_alert",
                "indexes": [
                    models.Index(fields=["tenant_id", "-id"], name="billing_budget_alert_newest")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("account", "month", "level_percent"),
                        name="billing_budget_alert_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("level_percent__in", (50, 80, 100))),
                        name="billing_budget_alert_level_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("used_usd__gt", 0),
                            ("used_usd__lt", 100000000000000),
                            ("limit_usd__gte", 0),
                            ("limit_usd__lt", 10000000000000),
                            (
                                "used_usd__gte",
                                django.db.models.expressions.CombinedExpression(
                                    django.db.models.expressions.CombinedExpression(
                                        models.F("limit_usd"), "*", models.F("level_percent")
                                    ),
                                    "/",
                                    models.Value(100),
                                ),
                            ),
                        ),
                        name="billing_budget_alert_level_was_reached",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("month__day", 1)),
                        name="billing_budget_alert_month_is_a_first_day",
                    ),
                ],
            },
        ),
        isolation.isolate("billing_budget_alert"),
        isolation.append_only("billing_budget_alert"),
    ]
