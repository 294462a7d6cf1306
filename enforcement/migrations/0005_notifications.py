"""Notices, their deliveries, and how far the ledger was read for them."""

import django.db.models.deletion
from django.db import migrations, models

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0004_simulations_and_promotions"),
    ]

    operations = [
        migrations.CreateModel(
            name="NoticeCursor",
            fields=[
                ("tenant_id", models.UUIDField(primary_key=True, serialize=False)),
                ("sequence", models.BigIntegerField()),
            ],
            options={
                "db_table": "enforcement_notice_cursor",
            },
        ),
        migrations.CreateModel(
            name="Notice",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("kind", models.CharField(max_length=30)),
                ("key", models.CharField(max_length=80)),
                ("subject_id", models.UUIDField()),
                ("facts", models.JSONField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "enforcement_notice",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant_id", "key"), name="enforcement_notice_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "kind__in",
                                (
                                    "approval.requested",
                                    "approval.approved",
                                    "approval.denied",
                                    "approval.withdrawn",
                                    "approval.expired",
                                    "approval.reminder",
                                    "budget.alert",
                                ),
                            )
                        ),
                        name="enforcement_notice_kind_is_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("channel", models.CharField(max_length=10)),
                ("destination", models.CharField(max_length=320)),
                ("state", models.CharField(default="pending", max_length=10)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_at", models.DateTimeField()),
                ("last_error", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField()),
                ("sent_at", models.DateTimeField(null=True)),
                (
                    "notice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="deliveries",
                        to="enforcement.notice",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "db_table": "enforcement_delivery",
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "pending")),
                        fields=["tenant_id", "next_at"],
                        name="enforcement_delivery_due",
                    ),
                    models.Index(fields=["tenant_id", "-id"], name="enforcement_delivery_newest"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("notice", "channel", "destination"),
                        name="enforcement_delivery_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ("pending", "sent", "dead"))),
                        name="enforcement_delivery_state_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("channel__in", ("email", "webhook"))),
                        name="enforcement_delivery_channel_is_known",
                    ),
                ],
            },
        ),
        isolation.isolate("enforcement_notice_cursor"),
        isolation.isolate("enforcement_notice"),
        isolation.isolate("enforcement_delivery"),
        isolation.revoke("enforcement_notice", "UPDATE", "DELETE", "TRUNCATE"),
        isolation.revoke("enforcement_delivery", "DELETE", "TRUNCATE"),
    ]
