"""Charges found, accounts locked and amounts held with fewer statements."""

from django.db import migrations

from billing.accounts.schema import create_lock_function
from billing.reservations.schema import replace_reservation_functions


class Migration(migrations.Migration):
    dependencies = [("billing", "0013_page_of_grants")]

    operations = [create_lock_function(), replace_reservation_functions()]
