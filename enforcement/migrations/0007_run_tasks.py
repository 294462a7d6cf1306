"""Calls of run tasks, and decisions found by their plan and by their run."""

from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0006_gate_functions"),
    ]

    operations = [
        migrations.CreateModel(
            name="RunTask",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("integration_id", models.UUIDField()),
                ("task_result_id", models.CharField(max_length=170)),
                ("run_id", models.CharField(max_length=170)),
                ("stage", models.CharField(max_length=20)),
                (
                    "call_json",
                    models.TextField(help_text="The call as it was read, without its token."),
                ),
                ("person_id", models.BigIntegerField()),
                ("sealed_token", models.BinaryField(null=True)),
                ("state", models.CharField(default="received", max_length=10)),
                ("decision_id", models.UUIDField()),
                ("plan_digest", models.CharField(max_length=64, null=True)),
                ("verdict_json", models.TextField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("last_error", models.CharField(max_length=200, null=True)),
                ("received_at", models.DateTimeField()),
                ("due_at", models.DateTimeField()),
                (
                    "told_at",
                    models.DateTimeField(
                        help_text="When the platform last heard of it.", null=True
                    ),
                ),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "enforcement_run_task",
            },
        ),
        migrations.AddField(
            model_name="decision",
            name="plan_digest",
            field=models.CharField(
                help_text="The change digest, where Valdrix computed it.", max_length=64, null=True
            ),
        ),
        migrations.AddIndex(
            model_name="decision",
            index=models.Index(
                condition=models.Q(("plan_digest__isnull", False)),
                fields=["tenant_id", "plan_digest", "-id"],
                name="enforcement_decision_plan",
            ),
        ),
        migrations.AddIndex(
            model_name="decision",
            index=models.Index(
                condition=models.Q(("run_id__isnull", False)),
                fields=["tenant_id", "run_id", "-id"],
                name="enforcement_decision_run",
            ),
        ),
        migrations.AddIndex(
            model_name="runtask",
            index=models.Index(
                condition=models.Q(("state__in", ("received", "decided"))),
                fields=["tenant_id", "due_at"],
                name="enforcement_run_task_due",
            ),
        ),
        migrations.AddIndex(
            model_name="runtask",
            index=models.Index(fields=["tenant_id", "run_id"], name="enforcement_run_task_run"),
        ),
        migrations.AddConstraint(
            model_name="runtask",
            constraint=models.UniqueConstraint(
                fields=("tenant_id", "integration_id", "task_result_id"),
                name="enforcement_run_task_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="runtask",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ("received", "decided", "reported", "given_up"))),
                name="enforcement_run_task_state_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="runtask",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state__in", ("reported", "given_up")), _negated=True),
                    ("sealed_token__isnull", True),
                    _connector="OR",
                ),
                name="enforcement_run_task_token_forgotten",
            ),
        ),
        isolation.isolate("enforcement_run_task"),
    ]
