"""What a gate reads and appends, each in one call."""

from django.db import migrations

from enforcement.decisions.schema import create_decision_function
from enforcement.gate.schema import create_gate_functions
from enforcement.ledger.schema import create_append_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0005_notifications"),
        ("billing", "0006_gate_functions"),
    ]

    operations = [
        create_append_function(),
        create_decision_function(),
        create_gate_functions(),
    ]
