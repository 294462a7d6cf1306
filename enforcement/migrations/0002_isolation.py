"""Row-level security, the append-only record, and the chain that the database itself keeps."""

from django.db import migrations

from enforcement.ledger.schema import create_ledger_functions
from valdrix.kernel import isolation


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0001_initial"), ("governance", "0002_isolation")]

    operations = [
        isolation.isolate("enforcement_decision"),
        isolation.isolate("enforcement_idempotency_key"),
        isolation.isolate("enforcement_ledger_entry"),
        isolation.isolate("enforcement_ledger_head"),
        isolation.append_only("enforcement_decision"),
        isolation.append_only("enforcement_ledger_entry"),
        create_ledger_functions(),
        isolation.revoke("enforcement_decision", "UPDATE", "DELETE", "TRUNCATE"),
        isolation.revoke("enforcement_idempotency_key", "UPDATE", "DELETE", "TRUNCATE"),
        isolation.revoke("enforcement_ledger_entry", "UPDATE", "DELETE", "TRUNCATE"),
        isolation.revoke("enforcement_ledger_head", "INSERT", "UPDATE", "DELETE", "TRUNCATE"),
    ]
