"""Reservations of metered use, and each day's kept counts."""

from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0011_holds_in_one_statement"),
    ]

    operations = [
        migrations.CreateModel(
            name="QuotaCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tenant_id", models.UUIDField()),
                ("meter", models.CharField(max_length=40)),
                ("day", models.DateField()),
                ("holder", models.CharField(max_length=40)),
                ("reserved_units", models.BigIntegerField(default=0)),
                ("used_units", models.BigIntegerField(default=0)),
            ],
            options={
                "db_table": "billing_quota_count",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant_id", "meter", "day", "holder"),
                        name="billing_quota_count_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reserved_units__gte", 0), ("used_units__gte", 0)),
                        name="billing_quota_count_is_not_negative",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="QuotaReservation",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("meter", models.CharField(max_length=40)),
                ("day", models.DateField()),
                ("holder", models.CharField(max_length=40)),
                ("principal_id", models.CharField(max_length=60)),
                ("provider", models.CharField(max_length=40)),
                ("units", models.BigIntegerField()),
                ("used_units", models.BigIntegerField(null=True)),
                ("state", models.CharField(default="reserved", max_length=10)),
                ("reserved_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("closed_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "billing_quota_reservation",
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "reserved")),
                        fields=["tenant_id", "expires_at"],
                        name="billing_quota_open",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ("reserved", "committed", "released", "expired")),
                            ("meter__in", ("llm_tokens",)),
                        ),
                        name="billing_quota_reservation_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("units__gte", 1),
                            models.Q(
                                models.Q(("state", "committed"), ("used_units__gte", 0)),
                                models.Q(
                                    ("used_units__isnull", True),
                                    models.Q(("state", "committed"), _negated=True),
                                ),
                                _connector="OR",
                            ),
                        ),
                        name="billing_quota_reservation_amounts_fit",
                    ),
                ],
            },
        ),
        isolation.isolate("billing_quota_count"),
        isolation.isolate("billing_quota_reservation"),
    ]
