"""The call that begins a gate, with fewer statements in it."""

from django.db import migrations

from enforcement.gate.schema import create_begin_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0018_rows_table_by_table"),
        ("billing", "0014_fewer_statements"),
        ("governance", "0016_policy_in_one_statement"),
    ]

    operations = [create_begin_function()]
