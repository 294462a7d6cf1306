"""Registered issuers of workloads' tokens."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0009_read_policy"),
    ]

    operations = [
        migrations.CreateModel(
            name="WorkloadIssuer",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200)),
                ("issuer", models.CharField(max_length=500)),
                ("jwks", models.JSONField(blank=True, null=True)),
                ("conditions", models.JSONField()),
                ("project_id", models.CharField(max_length=200)),
                ("created_by", models.CharField(max_length=60)),
                ("created_at", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                (
                    "person",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="governance.tenant",
                    ),
                ),
            ],
            options={
                "db_table": "governance_workload_issuer",
                "indexes": [
                    models.Index(fields=["tenant", "issuer"], name="governance_workload_by_issuer")
                ],
            },
        ),
        isolation.isolate("governance_workload_issuer"),
    ]
