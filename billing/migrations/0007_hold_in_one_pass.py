"""Holds that read what they are given once."""

from django.db import migrations

from billing.reservations.schema import replace_hold_function


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_gate_functions")]

    operations = [replace_hold_function()]
