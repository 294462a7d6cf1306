"""No row of a small export is sent again where its version is known, approvals and reservations too."""

from django.db import migrations

from enforcement.exports.schema import renew_export_functions


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0015_keys_confirmed_on_the_way")]

    operations = [renew_export_functions()]
