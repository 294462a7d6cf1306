"""Holds of a batch in one statement."""

from django.db import migrations

from billing.reservations.schema import replace_hold_function


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_pages")]

    operations = [replace_hold_function()]
