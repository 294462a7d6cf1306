"""A small export is counted and hashed where its rows are.

The functions that gave each file's rows stay in a database that has them: processes of the release
before call them until they are replaced.
"""

from django.db import migrations

from enforcement.exports.schema import create_export_functions


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0013_reviews_in_one_call")]

    operations = [create_export_functions()]
