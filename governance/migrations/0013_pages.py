"""What waits for a verdict, in the order in which it was asked, for pages of the queue."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0012_plan_of_a_caller"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(
                condition=Q(status="pending"),
                fields=["tenant_id", "id"],
                name="governance_approval_queue",
            ),
        ),
    ]
