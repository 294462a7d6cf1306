"""Scheduled jobs: one table, one run of a singleton at a time, and a failure that stops no other."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from django.utils.module_loading import import_string

from billing.accounts.models import Account
from billing.accounts.operations import BudgetTerms
from billing.reservations.models import Reservation
from enforcement.controls.budgets import create_budget
from governance.models import Approval
from tests.client import Api
from tests.conftest import owner_dsn
from tests.factories.tenants import World, system_actor
from tests.waiting import wait_until
from valdrix.celery import app, task_name
from valdrix.jobs import tasks
from valdrix.jobs.history import seconds_until_due
from valdrix.jobs.locking import job_lock, lock_number
from valdrix.jobs.running import Outcome, pause_seconds, run_job, run_until
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id
from valdrix.models import JobRun
from valdrix.schedule import JOBS, Job, find_job

ROOT = Path(__file__).parent.parent.parent
HERE = "tests.integration.test_jobs"


class Work:
    """What the jobs of these tests do; each test uses names of its own."""

    started = threading.Event()
    go_on = threading.Event()
    runs: list[str] = []


def slow() -> str:
    Work.runs.append("slow")
    Work.started.set()
    assert Work.go_on.wait(30)
    return "slept well"


def quick() -> None:
    Work.runs.append("quick")


def broken() -> None:
    Work.runs.append("broken")
    raise ValueError("no such luck")


@pytest.fixture(autouse=True)
def _fresh_work() -> None:
    Work.started.clear()
    Work.go_on.clear()
    Work.runs.clear()


def make_job(function: str, *, interval: int = 3600, singleton: bool = True) -> Job:
    return Job(f"test-{new_id()}", f"{HERE}.{function}", interval, singleton)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger="valdrix.jobs")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def runner() -> Iterator[Callable[[list[Job]], Callable[[], None]]]:
    """Give a function that starts a runner in a thread and returns what stops it."""
    stops: list[Callable[[], None]] = []

    def start(jobs: list[Job]) -> Callable[[], None]:
        stop = threading.Event()
        thread = threading.Thread(target=run_until, args=(stop.is_set, jobs))
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

        stops.append(end)
        return end

    yield start
    Work.go_on.set()
    for end in stops:
        end()
    for thread in threading.enumerate():  # A run that was given up may still be at it.
        if thread.name.startswith("test-"):
            thread.join(30)


# --- the table ----------------------------------------------------------------------------------


def test_every_job_of_the_table_can_be_run() -> None:
    assert JOBS
    assert len({job.name for job in JOBS}) == len(JOBS)
    assert len({lock_number(job.name) for job in JOBS}) == len(JOBS)
    for job in JOBS:
        assert callable(import_string(job.function)), job.name
        assert job.interval_seconds >= 60, job.name
        assert find_job(job.name) is job
    assert find_job("no-such-job") is None


def test_celery_beat_has_the_same_table() -> None:
    schedule = app.conf.beat_schedule
    assert set(schedule) == {job.name for job in JOBS}
    for job in JOBS:
        assert schedule[job.name]["schedule"] == job.interval_seconds
        assert schedule[job.name]["task"] == task_name(job)
        assert task_name(job) in app.tasks


def test_a_celery_task_runs_its_job_and_fails_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job = find_job("clear-sessions")
    assert job is not None
    task = app.tasks[task_name(job)]
    monkeypatch.setattr(tasks, "clear_sessions", quick)
    assert task.apply().result == "done"
    assert Work.runs == ["quick"]
    monkeypatch.setattr(tasks, "clear_sessions", broken)
    assert task.apply().state == "FAILURE"


# --- one run ------------------------------------------------------------------------------------


def test_a_run_is_one_line(lines: Callable[[], list[str]]) -> None:
    Work.go_on.set()
    job = make_job("slow")
    assert run_job(job) is Outcome.DONE
    (line,) = lines()
    assert line.startswith(f"job={job.name} outcome=done duration_ms=")
    assert line.endswith(' detail="slept well"')


def test_a_failure_is_an_outcome_and_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = make_job("broken")
    assert run_job(job) is Outcome.FAILED
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"job={job.name} outcome=failed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


def test_a_job_whose_function_is_missing_fails() -> None:
    assert run_job(make_job("no_such_function")) is Outcome.FAILED


def test_the_lock_is_free_again_after_a_failure() -> None:
    job = make_job("broken")
    assert [run_job(job), run_job(job)] == [Outcome.FAILED, Outcome.FAILED]
    assert Work.runs == ["broken", "broken"]


def test_a_singleton_that_runs_elsewhere_does_not_run(lines: Callable[[], list[str]]) -> None:
    job = make_job("quick")
    with job_lock(job.name) as is_held:
        assert is_held
        assert run_job(job) is Outcome.RUNS_ELSEWHERE
        with job_lock(make_job("quick").name) as is_other_held:
            assert is_other_held
    assert Work.runs == []
    assert f"job={job.name} outcome=runs_elsewhere" in lines()[0]
    assert run_job(job) is Outcome.DONE


def test_a_job_that_is_no_singleton_runs_beside_itself() -> None:
    job = make_job("quick", singleton=False)
    with job_lock(job.name):
        assert run_job(job) is Outcome.DONE


def test_of_many_runners_one_runs_a_singleton(
    run_in_threads: Callable[..., list[object]],
) -> None:
    job = make_job("slow")

    def compete(number: int) -> object:
        outcome = run_job(job)
        if outcome is Outcome.RUNS_ELSEWHERE:
            losers.append(number)
        if len(losers) == 7:
            Work.go_on.set()
        return outcome

    losers: list[int] = []
    outcomes = run_in_threads(8, compete)
    assert outcomes.count(Outcome.DONE) == 1
    assert outcomes.count(Outcome.RUNS_ELSEWHERE) == 7
    assert Work.runs == ["slow"]


def test_the_lock_is_one_of_a_transaction_that_may_be_idle() -> None:
    name = make_job("quick").name
    with job_lock(name), psycopg.connect(owner_dsn(), autocommit=True) as other:
        (taken,) = other.execute(
            "SELECT pg_try_advisory_xact_lock(%s)", [lock_number(name)]
        ).fetchone() or (None,)
        assert taken is False
        (state,) = other.execute(
            "SELECT a.state FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND (l.classid::bigint << 32 | l.objid::bigint) = %s"
            " AND a.datname = current_database()",
            [lock_number(name)],
        ).fetchone() or (None,)
        assert state in {"idle in transaction", None}  # None: the app's activity is not shown.
    with job_lock(name) as is_held:
        assert is_held


# --- the runner ---------------------------------------------------------------------------------


def test_a_failing_and_a_slow_job_stop_no_other(
    runner: Callable[[list[Job]], Callable[[], None]],
) -> None:
    jobs = [make_job("broken"), make_job("slow"), make_job("quick", interval=0)]
    runner(jobs)
    wait_until(lambda: Work.runs.count("quick") >= 3)
    assert {"broken", "slow"} <= set(Work.runs)


def test_a_job_waits_for_its_interval(runner: Callable[[list[Job]], Callable[[], None]]) -> None:
    stop = runner([make_job("quick", interval=3600), make_job("slow", interval=3600)])
    assert Work.started.wait(20)
    wait_until(lambda: "quick" in Work.runs)
    Work.go_on.set()
    time.sleep(0.3)
    stop()
    assert sorted(Work.runs) == ["quick", "slow"]


def test_stopping_does_not_wait_for_a_slow_job(
    runner: Callable[[list[Job]], Callable[[], None]],
    lines: Callable[[], list[str]],
) -> None:
    job = make_job("slow")
    stop = runner([job])
    assert Work.started.wait(20)
    began = time.monotonic()
    stop()
    assert time.monotonic() - began < 1
    assert f"job={job.name} outcome=given_up" in lines()


def test_a_failed_job_is_tried_again_sooner_and_then_ever_later() -> None:
    job = make_job("broken", interval=86_400)
    pauses = [pause_seconds(job, failures=n, took_seconds=0) for n in (0, 1, 2, 3, 30)]
    assert pauses == [86_400, 60, 120, 240, 86_400]
    assert pause_seconds(job, failures=0, took_seconds=400) == 86_000
    assert pause_seconds(make_job("broken", interval=5), failures=1, took_seconds=1) == 4
    assert pause_seconds(make_job("broken", interval=5), failures=0, took_seconds=9) == 0


# --- the command --------------------------------------------------------------------------------


def test_once_runs_the_named_jobs_and_tells_success(lines: Callable[[], list[str]]) -> None:
    with pytest.raises(SystemExit) as end:
        call_command("run_jobs", "--once", "--job", "clear-sessions")
    assert end.value.code == 0
    (line,) = lines()
    assert line.startswith("job=clear-sessions outcome=done")


def test_once_tells_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "clear_sessions", broken)
    with pytest.raises(SystemExit) as end:
        call_command("run_jobs", "--once", "--job", "clear-sessions")
    assert end.value.code == 1
    assert Work.runs == ["broken"]


def test_a_runner_that_starts_anew_does_not_run_a_singleton_again_before_it_is_due(
    runner: Callable[[list[Job]], Callable[[], None]],
) -> None:
    daily, often = make_job("quick"), make_job("quick", singleton=False)
    assert run_job(daily) is Outcome.DONE
    assert run_job(often) is Outcome.DONE
    Work.runs.clear()

    end = runner([daily])
    runner([often])
    wait_until(lambda: bool(Work.runs))
    end()

    assert Work.runs == ["quick"], "the one that is no singleton"
    JobRun.objects.filter(name=daily.name).update(
        ended_at=timezone.now() - timedelta(seconds=daily.interval_seconds)
    )
    runner([daily])
    wait_until(lambda: len(Work.runs) == 2)


def test_a_run_that_failed_is_not_a_run() -> None:
    failing, left = make_job("broken"), make_job("quick")
    assert run_job(failing) is Outcome.FAILED
    with job_lock(left.name):
        assert run_job(left) is Outcome.RUNS_ELSEWHERE

    assert seconds_until_due(failing) == seconds_until_due(left) == 0
    assert run_job(left) is Outcome.DONE
    assert 0 < seconds_until_due(left) <= left.interval_seconds


def test_an_unknown_job_is_refused() -> None:
    with pytest.raises(CommandError, match="no such job: nothing") as refusal:
        call_command("run_jobs", "--once", "--job", "nothing")
    assert refusal.value.returncode == 2


QUICK_JOBS = ("--job", "clear-sessions", "--job", "clear-sign-ins")


def test_a_signal_stops_the_program() -> None:
    settings = connection.settings_dict
    url = (
        f"postgresql://{settings['USER']}:{settings['PASSWORD'] or ''}@{settings['HOST']}"
        f":{settings['PORT']}/{settings['NAME']}"
    )
    JobRun.objects.all().delete()
    program = subprocess.Popen(
        # Not those that go through whatever all tests have left behind.
        [sys.executable, "-u", "manage.py", "run_jobs", *QUICK_JOBS],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stderr is not None
        seen = ""
        while "job=clear-sessions" not in seen or "job=clear-sign-ins" not in seen:
            line = program.stderr.readline()
            assert line, seen
            seen += line
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0
        assert "outcome=stopped" in program.stderr.read()
    finally:
        program.kill()
        program.wait()
        program.stderr and program.stderr.close()


# --- the jobs -----------------------------------------------------------------------------------


def test_expired_sessions_are_cleared_and_others_kept() -> None:
    keys = {f"{name}-{new_id().hex}": days for name, days in (("old", -1), ("new", 1))}
    for key, days in keys.items():
        Session.objects.create(
            session_key=key, session_data="", expire_date=timezone.now() + timedelta(days=days)
        )
    tasks.clear_sessions()
    left = Session.objects.filter(session_key__in=keys).values_list("session_key", flat=True)
    assert [key.split("-")[0] for key in left] == ["new"]


def test_every_ledger_is_verified_and_a_broken_one_fails_the_job(
    tenant: World,
    other_tenant: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[Any] = []

    class Found:
        def __init__(self, tenant_id: Any) -> None:
            seen.append(tenant_id)
            self.entries = 5
            self.fault = Fault if tenant_id == tenant.id else None

    class Fault:
        sequence, reason = 3, "entry_hash is not the hash of the entry"

    monkeypatch.setattr(tasks, "verify_ledger", Found)
    with pytest.raises(tasks.JobIncomplete, match=r"^failed in 1 of "):
        tasks.verify_ledgers()
    assert {tenant.id, other_tenant.id} <= set(seen)
    assert f"job=verify-ledgers tenant={tenant.id} outcome=failed" in caplog.text
    assert "broken at sequence 3: entry_hash" in caplog.text


def test_ledgers_that_hold_are_counted(
    tenant: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [tenant.id, other_tenant.id]
    monkeypatch.setattr(tasks, "tenant_ids_for_job", lambda job: ours)
    add_entry(tenant, Decimal("10.0000"))
    assert tasks.verify_ledgers() == "tenants=2 entries=1"


def test_overdue_reservations_of_every_tenant_are_settled_once(
    tenant: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    ours = [tenant.id, other_tenant.id]
    monkeypatch.setattr(tasks, "tenant_ids_for_job", lambda job: ours)
    for world in (tenant, other_tenant):
        add_entry(world, Decimal("100.0000"))
        body = {
            "project_id": "p",
            "environment": "dev",
            "resource_reference": "r",
            "estimated_monthly_delta_usd": "10.00",
        }
        assert api.post("gate/terraform", body, key=world.key).status_code == 200
    assert tasks.reconcile_all_overdue() == "tenants=2 posted=0 released=0 inconsistent=0"
    for world in (tenant, other_tenant):
        with transaction(world.id):
            past = timezone.now() - timedelta(hours=1)
            assert Reservation.objects.filter(tenant_id=world.id).update(due_at=past) == 1
    # Whoever may still approve them has time left: nothing is settled behind their back.
    assert tasks.reconcile_all_overdue() == "tenants=2 posted=0 released=0 inconsistent=0"
    for world in (tenant, other_tenant):
        with transaction(world.id):
            Approval.objects.filter(tenant_id=world.id).update(expires_at=past)
    assert tasks.expire_all_approvals() == "tenants=2 expired=2 released=2"
    assert tasks.reconcile_all_overdue() == "tenants=2 posted=0 released=0 inconsistent=0"
    for world in (tenant, other_tenant):
        with reading(world.id):
            assert Account.objects.get(tenant_id=world.id, kind="budget").pending_usd == 0


def add_entry(world: World, limit: Decimal) -> None:
    """Put one entry on a tenant's ledger: a budget of the project p for nonprod."""
    create_budget(
        actor=system_actor(world.id),
        budget_id=new_id(),
        terms=BudgetTerms(project_id="p", environment="nonprod", monthly_limit_usd=limit),
    )
