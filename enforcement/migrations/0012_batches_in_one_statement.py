"""What a batch of gates claims and appends, each in one statement."""

from django.db import migrations

from enforcement.gate.schema import create_begin_function
from enforcement.ledger.schema import create_append_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0011_who_could_have_asked"),
        ("billing", "0011_holds_in_one_statement"),
    ]

    operations = [create_begin_function(), create_append_function()]
