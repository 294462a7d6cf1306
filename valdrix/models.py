"""The table of the project itself: when its jobs last ran. Its rows belong to no tenant."""

from __future__ import annotations

from django.db import models


class JobRun(models.Model):
    """When a job last ran to its end, wherever that was."""

    name = models.CharField(max_length=60, primary_key=True)
    ended_at = models.DateTimeField()

    class Meta:
        db_table = "valdrix_job_run"

    def __str__(self) -> str:
        return self.name
