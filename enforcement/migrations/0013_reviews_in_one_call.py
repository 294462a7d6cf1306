"""Retries and approvals are looked for in the call that begins a gate."""

from django.db import migrations

from enforcement.gate.schema import create_begin_function


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0012_batches_in_one_statement")]

    operations = [create_begin_function()]
