"""Where the namespaces of a cluster belong."""

import django.db.models.deletion
from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [("governance", "0007_tokens")]

    operations = [
        migrations.CreateModel(
            name="ClusterBinding",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("namespace", models.CharField(max_length=63)),
                ("project_id", models.CharField(max_length=200)),
                ("environment", models.CharField(max_length=200)),
                ("created_by", models.CharField(max_length=60)),
                ("created_at", models.DateTimeField()),
                (
                    "integration",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="governance.integration",
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
                "db_table": "governance_cluster_binding",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("integration", "namespace"),
                        name="governance_cluster_binding_once",
                    )
                ],
            },
        ),
        isolation.isolate("governance_cluster_binding"),
    ]
