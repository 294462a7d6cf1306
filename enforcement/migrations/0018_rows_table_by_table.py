"""What belongs to the rows of a queue, and the versions of a small export's, is read table by table."""

from django.db import migrations

from enforcement.exports.schema import renew_export_functions
from enforcement.review.schema import renew_queue_function


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0017_page_of_budgets")]

    operations = [renew_export_functions(), renew_queue_function()]
