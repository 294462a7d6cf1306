"""A page of the queue also says which credentials somebody was shown that asked."""

from django.db import migrations

from enforcement.review.schema import renew_queue_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0010_pages_in_one_call"),
    ]

    operations = [
        renew_queue_function(),
    ]
