"""A page of budgets comes from a function that is planned once a session."""

from django.db import migrations

from enforcement.controls.schema import create_budgets_page


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0016_exports_by_versions"),
        ("billing", "0013_page_of_grants"),
    ]

    operations = [create_budgets_page()]
