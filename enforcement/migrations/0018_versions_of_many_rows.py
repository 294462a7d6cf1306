"""The versions of a small export's rows are read table by table."""

from django.db import migrations

from enforcement.exports.schema import renew_export_functions


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0017_page_of_budgets")]

    operations = [renew_export_functions()]
