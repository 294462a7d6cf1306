"""Simulations that people ask for, and promotions of modes."""

from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0003_exports"),
    ]

    operations = [
        migrations.CreateModel(
            name="Promotion",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("source", models.CharField(max_length=20)),
                ("environment", models.CharField(max_length=10)),
                ("from_mode", models.CharField(max_length=10)),
                ("to_mode", models.CharField(max_length=10)),
                ("state", models.CharField(default="proposed", max_length=10)),
                ("figures_json", models.TextField()),
                ("proposed_by", models.CharField(help_text="Principal id.", max_length=60)),
                ("proposer_person_id", models.BigIntegerField()),
                ("proposed_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                (
                    "signed_by",
                    models.CharField(help_text="Principal id.", max_length=60, null=True),
                ),
                ("signer_person_id", models.BigIntegerField(null=True)),
                ("signed_at", models.DateTimeField(null=True)),
                ("policy_version", models.PositiveIntegerField(null=True)),
            ],
            options={
                "db_table": "enforcement_promotion",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ("proposed", "signed", "withdrawn"))),
                        name="enforcement_promotion_state_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "signed"), _negated=True),
                            models.Q(
                                ("signer_person_id__isnull", False),
                                models.Q(
                                    ("signer_person_id", models.F("proposer_person_id")),
                                    _negated=True,
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="enforcement_promotion_by_two_people",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "proposed")),
                        fields=("tenant_id", "source", "environment"),
                        name="enforcement_promotion_one_proposed",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Simulation",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("status", models.CharField(default="queued", max_length=10)),
                ("document_json", models.TextField(help_text="The policy, in RFC 8785 form.")),
                ("policy_sha256", models.CharField(max_length=64)),
                ("start_at", models.DateTimeField()),
                ("end_at", models.DateTimeField()),
                ("requested_by", models.CharField(help_text="Principal id.", max_length=60)),
                ("requested_at", models.DateTimeField()),
                (
                    "seen_at",
                    models.DateTimeField(help_text="When its runner was last heard of.", null=True),
                ),
                ("finished_at", models.DateTimeField(null=True)),
                ("total", models.PositiveIntegerField(default=0)),
                ("done", models.PositiveIntegerField(default=0)),
                ("result_json", models.TextField(null=True)),
                ("error", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "enforcement_simulation",
                "indexes": [
                    models.Index(fields=["tenant_id", "-id"], name="enforcement_simulation_newest"),
                    models.Index(
                        condition=models.Q(("status__in", ("queued", "running"))),
                        fields=["tenant_id", "id"],
                        name="enforcement_simulation_open",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ("queued", "running", "done", "failed"))),
                        name="enforcement_simulation_status_is_known",
                    )
                ],
            },
        ),
        isolation.isolate("enforcement_simulation"),
        isolation.isolate("enforcement_promotion"),
        isolation.revoke("enforcement_simulation", "DELETE", "TRUNCATE"),
        isolation.revoke("enforcement_promotion", "DELETE", "TRUNCATE"),
    ]
