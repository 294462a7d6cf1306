"""The call that begins a gate confirms first whom its credentials speak for."""

from django.db import migrations

from enforcement.gate.schema import create_begin_function


class Migration(migrations.Migration):
    dependencies = [
        ("enforcement", "0014_small_exports_figures"),
        ("governance", "0014_keys_confirmed_on_the_way"),
    ]

    operations = [create_begin_function()]
