"""Holds that read what they are given once, and the lock of several scopes at once."""

from django.db import migrations

from billing.accounts.schema import create_scopes_function
from billing.reservations.schema import replace_hold_function


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_gate_functions")]

    operations = [replace_hold_function(), create_scopes_function()]
