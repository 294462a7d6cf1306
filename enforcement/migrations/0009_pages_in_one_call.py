"""The rows of a small export, each file's from one function, and a page of the queue from one."""

from django.db import migrations

from enforcement.exports.schema import create_export_functions
from enforcement.review.schema import create_queue_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0008_gate_in_one_call"),
    ]

    operations = [
        create_export_functions(),
        create_queue_function(),
    ]
