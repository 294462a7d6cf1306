"""A page of credit grants comes from a function that is planned once a session."""

from django.db import migrations

from billing.accounts.schema import create_grants_page


class Migration(migrations.Migration):
    dependencies = [("billing", "0012_quotas")]

    operations = [create_grants_page()]
