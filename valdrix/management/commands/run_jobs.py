"""``manage.py run_jobs``: the scheduled jobs, in this process, where there is no broker."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from valdrix.jobs.running import Outcome, run_job, run_until
from valdrix.schedule import JOBS, find_job

log = logging.getLogger("valdrix.jobs")


class Command(BaseCommand):
    """Exit code 0: stopped, or with --once every job done; 1: one failed; 2: used wrongly."""

    help = "Runs the scheduled jobs until it is told to stop, each by its interval."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whether to go on, and which jobs."""
        parser.add_argument("--once", action="store_true", help="run each job now, once, and end")
        parser.add_argument(
            "--job", action="append", metavar="NAME", help="only this one; may be repeated"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the jobs."""
        jobs = JOBS
        if options["job"]:
            unknown = sorted({name for name in options["job"] if find_job(name) is None})
            if unknown:
                known = ", ".join(job.name for job in JOBS)
                raise CommandError(
                    f"no such job: {', '.join(unknown)} (there are {known})", returncode=2
                )
            jobs = tuple(job for job in JOBS if job.name in options["job"])
        if options["once"]:
            outcomes = [run_job(job) for job in jobs]
            sys.exit(1 if Outcome.FAILED in outcomes else 0)
        asked: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: asked.append(number))
        log.info("jobs=%d outcome=started", len(jobs))
        run_until(lambda: bool(asked), jobs)
        log.info("jobs=%d outcome=stopped", len(jobs))
