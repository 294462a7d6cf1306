"""Prompting: asks that a job run now rather than when its interval is over. Best effort.

No request depends on it: a prompt that is lost costs the rest of an interval. By default it is a
notification in the database, which the in-process runner listens to; where a broker is configured
the composition binds a task to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.db import DatabaseError, connection

log = logging.getLogger("valdrix.jobs")

CHANNEL: Final = "valdrix_jobs"

Prompter = Callable[[str], None]


def _notify(job: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, job])


class _Bound:
    prompter: Prompter = staticmethod(_notify)


def bind(prompter: Prompter) -> None:
    """Set what a prompt does, for this process."""
    _Bound.prompter = staticmethod(prompter)


def prompt(job: str) -> None:
    """Ask that a job run now; call it after the commit of what the job is to find."""
    try:
        _Bound.prompter(job)
    except (DatabaseError, OSError) as error:
        log.warning("job=%s could not be prompted", job, exc_info=error)
