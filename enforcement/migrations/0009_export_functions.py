"""The rows of a small export, each file's from one function."""

from django.db import migrations

from enforcement.exports.schema import create_export_functions


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0008_gate_in_one_call"),
    ]

    operations = [
        create_export_functions(),
    ]
