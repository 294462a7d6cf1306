"""Accounts of one kind in the order in which they were made, for pages."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0009_cost_history"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="account",
            index=models.Index(fields=["tenant_id", "kind", "id"], name="billing_account_page"),
        ),
    ]
