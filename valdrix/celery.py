"""Celery: the same jobs, from the same table, where CELERY_BROKER_URL or REDIS_URL is set.

No request depends on the broker; it only tells workers what the clock says.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from kombu.exceptions import OperationalError

from valdrix.jobs.running import Outcome, run_job
from valdrix.schedule import JOBS, Job, find_job

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "valdrix.settings")

app = Celery("valdrix")
app.config_from_object("django.conf:settings", namespace="CELERY")


def task_name(job: Job) -> str:
    """Return the name of a job's task."""
    return f"valdrix.jobs.{job.name}"


def keep_logging(**_options: Any) -> None:
    """Keep the logs as Django's settings have them: Celery would give them another form."""


setup_logging.connect(keep_logging)


def prompt_task(name: str) -> None:
    """Ask a worker to run a job now.

    :raises ConnectionError: when the broker does not take it.
    """
    job = find_job(name)
    if job is None:
        return
    try:
        app.send_task(task_name(job), expires=job.interval_seconds, retry=False)
    except OperationalError as error:
        raise ConnectionError(str(error)) from error


class JobFailed(Exception):
    """A job failed; its own exception is in the log."""


def _add_task(job: Job) -> None:
    @app.task(name=task_name(job))  # type: ignore[untyped-decorator]
    def run() -> str:
        outcome = run_job(job)
        if outcome is Outcome.FAILED:
            raise JobFailed(job.name)
        return outcome.value


for _job in JOBS:
    _add_task(_job)

app.conf.beat_schedule = {
    job.name: {
        "task": task_name(job),
        "schedule": job.interval_seconds,
        # What no worker took in time is not made up for: the next one is due by then.
        "options": {"expires": job.interval_seconds},
    }
    for job in JOBS
}
