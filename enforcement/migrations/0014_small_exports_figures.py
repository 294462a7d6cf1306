"""A small export is counted and hashed where its rows are."""

from django.db import migrations

from enforcement.exports.schema import create_export_functions

_ROWS_OF_FILES = "".join(
    f"DROP FUNCTION IF EXISTS enforcement_export_{name}"
    " (uuid, timestamptz, timestamptz, bigint, bigint);"
    for name in ("decisions", "approvals", "ledger", "reservations")
)


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0013_reviews_in_one_call")]

    operations = [
        create_export_functions(),
        migrations.RunSQL(_ROWS_OF_FILES, migrations.RunSQL.noop),
    ]
