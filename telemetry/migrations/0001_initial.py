"""The tables of telemetry: one tenant's rows each, and the switch, which is on."""

import django.db.models.functions.text
import django.db.models.lookups
from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    initial = True

    # The functions that isolation calls are made there; no table of truth is referred to.
    dependencies = [("governance", "0002_isolation")]

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("kind", models.CharField(max_length=40)),
                ("at", models.DateTimeField()),
                ("outcome", models.CharField(max_length=40)),
                ("source", models.CharField(max_length=40, null=True)),
                ("environment", models.CharField(max_length=40, null=True)),
                ("duration_ms", models.BigIntegerField(null=True)),
                ("amount_usd", models.DecimalField(decimal_places=4, max_digits=17, null=True)),
                ("attributes", models.TextField(default="{}")),
            ],
            options={
                "db_table": "telemetry_event",
                "indexes": [
                    models.Index(fields=["tenant_id", "kind", "at"], name="telemetry_event_window"),
                    models.Index(fields=["tenant_id", "at"], name="telemetry_event_age"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=django.db.models.lookups.LessThanOrEqual(
                            django.db.models.functions.text.Length("attributes"), 2048
                        ),
                        name="telemetry_event_is_small",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Switch",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("is_on", models.BooleanField(default=True)),
                ("reason", models.CharField(default="", max_length=200)),
                ("changed_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "telemetry_switch",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="telemetry_switch_is_one_row"
                    )
                ],
            },
        ),
        isolation.isolate("telemetry_event"),
        migrations.RunSQL(
            "INSERT INTO telemetry_switch (id, is_on, reason) VALUES (1, true, '')",
            migrations.RunSQL.noop,
        ),
    ]
