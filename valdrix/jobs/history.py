"""When jobs last ran, by the database's clock: it is the one clock that all runners share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db import connection

from valdrix.kernel.db import platform_transaction
from valdrix.schedule import Job

_RECORD: Final = """
INSERT INTO valdrix_job_run (name, ended_at) VALUES (%s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET ended_at = excluded.ended_at
"""
_AGE: Final = """
SELECT extract(epoch FROM clock_timestamp() - ended_at)::float8 FROM valdrix_job_run WHERE name = %s
"""
_AGES: Final = """
SELECT job.name, greatest(0, extract(epoch FROM clock_timestamp() - coalesce(
    run.ended_at, (SELECT max(applied) FROM django_migrations)
)))::float8
FROM unnest(%s::text[]) AS job (name) LEFT JOIN valdrix_job_run AS run ON run.name = job.name
"""


def record_run(job: Job) -> None:
    """Note that a job ran to its end just now."""
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute(_RECORD, [job.name])


def seconds_until_due(job: Job) -> float:
    """Return how long to wait until a job is due, by when anybody last ran it; 0 for never."""
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute(_AGE, [job.name])
        row = cursor.fetchone()
    return 0.0 if row is None else max(0.0, job.interval_seconds - row[0])


def read_ages(jobs: Sequence[Job]) -> dict[str, float]:
    """Return how many seconds ago each job last ran to its end, by name; it opens no transaction.

    A job that never did is as old as the newest migration: whoever applied that expected it
    to run since.
    """
    with connection.cursor() as cursor:
        cursor.execute(_AGES, [[job.name for job in jobs]])
        ages: dict[str, float] = dict(cursor.fetchall())
    return {job.name: ages[job.name] for job in jobs}
