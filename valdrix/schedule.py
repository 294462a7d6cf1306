"""The one table of scheduled jobs: Celery beat and the in-process runner both read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Job:
    """One scheduled job.

    :ivar name: what logs, locks and commands call it; permanent, because it names a lock.
    :ivar function: dotted path of a function without arguments that returns a sentence for the
        log, or None, and raises when the job failed.
    :ivar interval_seconds: from the start of one run to the start of the next.
    :ivar singleton: whether two runs at once, wherever they are, must not happen.
    """

    name: str
    function: str
    interval_seconds: int
    singleton: bool


_HOUR: Final = int(timedelta(hours=1).total_seconds())
_DAY: Final = int(timedelta(days=1).total_seconds())

# fmt: off
JOBS: Final[tuple[Job, ...]] = (
    Job("reconcile-overdue", "valdrix.jobs.tasks.reconcile_all_overdue", 60, singleton=False),
    Job("expire-approvals", "valdrix.jobs.tasks.expire_all_approvals", 60, singleton=False),
    Job("budget-alerts", "valdrix.jobs.tasks.raise_all_budget_alerts", 60, singleton=False),
    Job("send-notifications", "valdrix.jobs.tasks.send_notifications", 60, singleton=False),
    Job("work-run-tasks", "valdrix.jobs.tasks.work_run_tasks", 60, singleton=False),
    Job("check-integrity", "valdrix.jobs.tasks.check_all_integrity", _DAY, singleton=True),
    Job("verify-ledgers", "valdrix.jobs.tasks.verify_ledgers", _DAY, singleton=True),
    Job("run-simulations", "valdrix.jobs.tasks.run_simulations", 60, singleton=False),
    Job("keep-checkpoints", "valdrix.jobs.tasks.keep_checkpoints", _HOUR, singleton=True),
    Job("clean-telemetry", "valdrix.jobs.tasks.clean_telemetry", _HOUR, singleton=True),
    Job("clear-sessions", "valdrix.jobs.tasks.clear_sessions", _DAY, singleton=True),
    Job("clear-sign-ins", "valdrix.jobs.tasks.clear_sign_ins", _HOUR, singleton=True),
)
# fmt: on


def find_job(name: str) -> Job | None:
    """Return the job of a name, or None."""
    return next((job for job in JOBS if job.name == name), None)
