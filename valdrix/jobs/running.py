"""One run of one job, and a runner that goes on running all of them."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final

import psycopg
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.utils.module_loading import import_string

from valdrix.jobs.history import record_run, seconds_until_due
from valdrix.jobs.locking import job_lock
from valdrix.kernel.prompting import CHANNEL
from valdrix.schedule import Job

log = logging.getLogger("valdrix.jobs")

FIRST_RETRY_SECONDS: Final = 60
POLL_SECONDS: Final = 0.05
RELISTEN_SECONDS: Final = 5.0
STOP_WITHIN_SECONDS: Final = 0.5
_LINE: Final = "job=%s outcome=%s duration_ms=%d%s"


class Outcome(enum.StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    RUNS_ELSEWHERE = "runs_elsewhere"


def run_job(job: Job) -> Outcome:
    """Run one job once, unless it is a singleton that runs elsewhere, and log one line.

    Whatever a job raises is logged with its traceback and becomes an outcome.
    """
    began = time.monotonic()
    try:
        function: Callable[[], str | None] = import_string(job.function)
        with job_lock(job.name) if job.singleton else nullcontext(enter_result=True) as may_run:
            said = function() if may_run else None
            if may_run:
                record_run(job)
    except Exception:
        log.exception(_LINE, job.name, Outcome.FAILED, _milliseconds_since(began), "")
        return Outcome.FAILED
    outcome = Outcome.DONE if may_run else Outcome.RUNS_ELSEWHERE
    detail = "" if said is None else f' detail="{said}"'
    log.info(_LINE, job.name, outcome, _milliseconds_since(began), detail)
    return outcome


def run_until(is_stopping: Callable[[], bool], jobs: Sequence[Job]) -> None:
    """Run jobs by their intervals until it is time to stop; each has a thread of its own.

    Each runs at once, except for a singleton that ran less than its interval ago, wherever that
    was: it runs when it is due. A run that is in progress at the end is given up: what it did not
    commit never happened.

    :param is_stopping: asked several times a second, so that the handler of a signal, which may
        interrupt anything, need not touch a lock to say so.
    """
    stop = threading.Event()
    wakes = {job.name: threading.Event() for job in jobs}
    threads = [
        threading.Thread(
            target=_repeat, args=(job, stop, wakes[job.name]), name=job.name, daemon=True
        )
        for job in jobs
    ]
    threads.append(
        threading.Thread(target=_listen, args=(wakes, stop), name="prompts", daemon=True)
    )
    for thread in threads:
        thread.start()
    while not is_stopping():
        time.sleep(POLL_SECONDS)
    stop.set()
    for wake in wakes.values():
        wake.set()
    deadline = time.monotonic() + STOP_WITHIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.warning("job=%s outcome=given_up", thread.name)


def pause_seconds(job: Job, *, failures: int, took_seconds: float) -> float:
    """Return how long to wait after a run.

    :param failures: how many runs in a row have failed: a failed job is tried again after a
        minute, then two, four and so on, never later than its interval says.
    """
    due = max(0.0, job.interval_seconds - took_seconds)
    if failures == 0:
        return due
    return min(due, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20))


def _repeat(job: Job, stop: threading.Event, wake: threading.Event) -> None:
    failures = 0
    wake.wait(_first_pause_seconds(job))
    while not stop.is_set():
        began = time.monotonic()
        outcome = run_job(job)
        # The next run may be a day away: a connection kept open would only go stale.
        connections.close_all()
        failures = failures + 1 if outcome is Outcome.FAILED else 0
        took = time.monotonic() - began
        if wake.wait(pause_seconds(job, failures=failures, took_seconds=took)):
            wake.clear()


def _listen(wakes: dict[str, threading.Event], stop: threading.Event) -> None:
    """Wake jobs that somebody prompts; without a connection they still go by their intervals."""
    while not stop.is_set():
        opened = connections.create_connection(DEFAULT_DB_ALIAS)
        try:
            with opened.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            assert opened.connection is not None
            while not stop.is_set():
                for notified in opened.connection.notifies(timeout=POLL_SECONDS * 4, stop_after=1):
                    if notified.payload in wakes:
                        wakes[notified.payload].set()
        except (DatabaseError, psycopg.Error) as error:
            log.warning("prompts are not heard: %s", type(error).__name__)
            stop.wait(RELISTEN_SECONDS)
        finally:
            opened.close()


def _first_pause_seconds(job: Job) -> float:
    """Return how long a runner that starts now waits before it runs a job."""
    if not job.singleton:
        return 0.0
    try:
        return seconds_until_due(job)
    except DatabaseError:
        log.exception("job=%s outcome=unknown_when_it_last_ran", job.name)
        return 0.0
    finally:
        connections.close_all()


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
