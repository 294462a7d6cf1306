"""Integrations, and the look-up of one before its tenant is known."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from valdrix.kernel import isolation

_LOOKUP = """
CREATE FUNCTION governance_find_integration(p_id uuid, p_kind text)
RETURNS TABLE (tenant_id uuid, person_id bigint, project_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT i.tenant_id, i.person_id, i.project_id::text
      FROM governance_integration i
      JOIN governance_membership m ON m.tenant_id = i.tenant_id AND m.user_id = i.person_id
      JOIN governance_user u ON u.id = i.person_id AND u.is_active
     WHERE i.id = p_id AND i.kind = p_kind AND i.revoked_at IS NULL;
$$;
"""
_DROP_LOOKUP = "DROP FUNCTION governance_find_integration(uuid, text);"


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0002_isolation"),
    ]

    operations = [
        migrations.CreateModel(
            name="Integration",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("run_task", "run_task"),
                            ("cluster", "cluster"),
                            ("webhook", "webhook"),
                        ],
                        max_length=20,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("project_id", models.CharField(blank=True, max_length=200, null=True)),
                ("settings", models.JSONField(default=dict)),
                ("sealed_secret", models.BinaryField()),
                ("created_by", models.CharField(max_length=60)),
                ("created_at", models.DateTimeField()),
                ("rotated_at", models.DateTimeField(blank=True, null=True)),
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
                "db_table": "governance_integration",
                "indexes": [
                    models.Index(
                        fields=["tenant", "created_at"], name="governance_integration_list"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ("run_task", "cluster", "webhook"))),
                        name="governance_integration_kind_is_known",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("revoked_at__isnull", True)),
                        fields=("tenant", "kind", "name"),
                        name="governance_integration_name_once",
                    ),
                ],
            },
        ),
        isolation.isolate("governance_integration"),
        migrations.RunSQL(_LOOKUP, _DROP_LOOKUP),
    ]
