"""The tenant of a transaction, found without a call for each row."""

from django.db import migrations

from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [("governance", "0010_workload_issuers")]

    operations = [isolation.replace_tenant_function()]
