"""When jobs last ran, so that a runner that starts anew does not run a daily job again."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="JobRun",
            fields=[
                ("name", models.CharField(max_length=60, primary_key=True, serialize=False)),
                ("ended_at", models.DateTimeField()),
            ],
            options={"db_table": "valdrix_job_run"},
        ),
    ]
