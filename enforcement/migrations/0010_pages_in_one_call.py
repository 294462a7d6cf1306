"""The rows of a small export, each file's from one function, and a page of the queue from one."""

from django.db import migrations

from enforcement.exports.schema import create_export_functions
from enforcement.review.schema import create_queue_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0009_one_row_of_costs"),
        ("governance", "0013_pages"),
    ]

    operations = [
        create_export_functions(),
        create_queue_function(),
    ]
