"""What a gate reads, locks and holds, each in one call."""

from django.db import migrations

from billing.accounts.schema import create_account_functions
from billing.reservations.schema import create_reservation_functions


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_approved_overruns")]

    operations = [create_account_functions(), create_reservation_functions()]
