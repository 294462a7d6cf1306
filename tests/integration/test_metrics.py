"""``/metrics``: the names operators rely on, moved by what really happens."""

from __future__ import annotations

import re
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from tests.client import Api
from tests.conftest import owner_dsn
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.jobs.locking import job_lock
from valdrix.jobs.running import Outcome, run_job
from valdrix.metrics import state
from valdrix.models import JobRun
from valdrix.schedule import JOBS, find_job

PROJECT = Path(__file__).parents[2]


def scrape() -> dict[str, float]:
    text = Api().get("/metrics").content.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_a_decision_moves_the_gate_s_metrics_and_names_nobody(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    decided = (
        "valdrix_ops_enforcement_gate_decisions_total"
        '{decision="ALLOW",mode="hard",source="terraform"}'
    )
    count = "valdrix_ops_enforcement_gate_latency_seconds_count"
    before = scrape()

    shop.ask("10.00", key="k")
    shop.ask("10.00", key="k")

    after = scrape()
    assert after[decided] - before.get(decided, 0) == 1, "a replay is no decision"
    assert after[count] - before.get(count, 0) == 1
    acquired = 'valdrix_ops_enforcement_gate_lock_events_total{event="acquired"}'
    assert after[acquired] - before.get(acquired, 0) == 1
    text = Api().get("/metrics").content.decode()
    assert tenant.slug not in text
    assert "shop" not in text


def test_requests_and_authentications_are_counted_by_route(api: Api, tenant: World) -> None:
    failed = 'auth_attempts_total{outcome="failed"}'
    before = scrape().get(failed, 0)

    api.get("budgets", key="vdx_nonsense")
    api.get("/no/such/path")

    after = scrape()
    assert after[failed] - before == 1
    assert any('route="unmatched"' in name for name in after)
    assert any('route="api/v1/enforcement/budgets"' in name for name in after)


def test_the_state_that_was_read_is_kept_by_no_process(
    database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(*_: object, **__: object) -> None:
        pytest.fail("several processes would add up what each read at its last scrape")

    monkeypatch.setattr("prometheus_client.values.ValueClass", keep)
    state.forget()
    lines = state.render().decode().splitlines()
    state.forget()
    samples = [line.split(" ")[0] for line in lines if not line.startswith("#")]
    assert samples == [
        "valdrix_ops_database_up", "valdrix_ops_pending_migrations",
        "valdrix_ops_enforcement_approval_queue_backlog", "valdrix_ops_open_incidents",
        *(age_of(job.name) for job in JOBS), *(interval_of(job.name) for job in JOBS),
    ]  # fmt: skip


# --- the jobs -----------------------------------------------------------------------------------


def age_of(job_name: str) -> str:
    return f'valdrix_ops_job_age_seconds{{job_name="{job_name}"}}'


def interval_of(job_name: str) -> str:
    return f'valdrix_ops_job_interval_seconds{{job_name="{job_name}"}}'


def scrape_anew() -> dict[str, float]:
    state.forget()
    try:
        return scrape()
    finally:
        state.forget()


def seconds_since_newest_migration() -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - max(applied))::float8"
            " FROM django_migrations"
        )
        return float(cursor.fetchone()[0])


@pytest.mark.parametrize("name", ["clear-sign-ins", "reconcile-overdue"])
def test_a_job_that_ran_is_as_old_as_its_end_and_one_that_never_did_as_the_schema(
    name: str, database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs one at a time, and one that does not."""
    job = find_job(name)
    assert job is not None
    began = timezone.now()
    JobRun.objects.filter(name=job.name).delete()
    at_least = seconds_since_newest_migration()

    never = scrape_anew()[age_of(name)]

    assert at_least <= never <= seconds_since_newest_migration()

    monkeypatch.setattr(job.function, lambda: None)
    assert run_job(job) is Outcome.DONE
    ran = scrape_anew()

    assert 0 <= ran[age_of(name)] <= (timezone.now() - began).total_seconds()
    assert ran[interval_of(name)] == job.interval_seconds


@pytest.mark.parametrize("name", ["check-integrity", "send-notifications"])
def test_a_job_that_fails_grows_older_until_it_runs_to_its_end(
    name: str, database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = find_job(name)
    assert job is not None
    late = 4.0 * job.interval_seconds
    JobRun.objects.update_or_create(
        name=name, defaults={"ended_at": timezone.now() - timedelta(seconds=late)}
    )

    def fail() -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(job.function, fail)
    assert run_job(job) is Outcome.FAILED
    with job_lock(name) if job.singleton else nullcontext():
        elsewhere = Outcome.RUNS_ELSEWHERE if job.singleton else Outcome.FAILED
        assert run_job(job) is elsewhere

    assert scrape_anew()[age_of(name)] >= late

    monkeypatch.setattr(job.function, lambda: None)
    assert run_job(job) is Outcome.DONE
    assert scrape_anew()[age_of(name)] < late


def test_a_clock_that_is_ahead_makes_no_job_younger_than_now(database: None) -> None:
    JobRun.objects.update_or_create(
        name="clear-sessions", defaults={"ended_at": timezone.now() + timedelta(hours=1)}
    )
    try:
        assert scrape_anew()[age_of("clear-sessions")] == 0
    finally:
        JobRun.objects.filter(name="clear-sessions").delete()


def test_the_runbook_s_statement_finds_who_holds_a_job_s_lock(database: None) -> None:
    runbook = (PROJECT / "docs" / "runbooks" / "ValdrixJobLate.md").read_text()
    (statement,) = re.findall(r"```sql\n(.*?)```", runbook, re.DOTALL)
    with psycopg.connect(owner_dsn(), autocommit=True) as owner:
        assert owner.execute(statement).fetchall() == []
        with job_lock("verify-ledgers"):
            assert owner.execute(statement).fetchall() == []
        with job_lock("check-integrity"):
            assert len(owner.execute(statement).fetchall()) == 1
