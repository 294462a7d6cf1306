"""Budget alerts: each level once a month, from kept totals, never by a gate."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError
from prometheus_client import REGISTRY

from billing.alerts import operations
from billing.alerts.operations import raise_budget_alerts
from billing.alerts.queries import find_alerts
from billing.models import BudgetAlert, DailyCost
from tests.factories.headroom import PROJECT, Shop
from tests.factories.tenants import World
from tests.integration.test_admin import page_url, sign_in
from tests.integration.test_reconciliation import settled
from tests.threads import run_in_threads
from valdrix.jobs.tasks import raise_all_budget_alerts
from valdrix.kernel.db import reading, transaction
from valdrix.schedule import find_job


@pytest.fixture
def shop(tenant: World) -> Shop:
    return Shop(tenant)


def levels(shop: Shop, budget_id: str) -> list[int]:
    """Return the levels that the API shows."""
    document = shop.api.get(f"budgets/{budget_id}", key=shop.world.member.key).json()
    assert all(alert["raised_at"].endswith("Z") for alert in document["alerts"])
    return [alert["level_percent"] for alert in document["alerts"]]


def look(shop: Shop, *, at: datetime | None = None) -> int:
    return raise_budget_alerts(shop.world.id, at=at or datetime.now(UTC))


def sample(level: int) -> float:
    name = "valdrix_ops_enforcement_budget_alerts_total"
    return REGISTRY.get_sample_value(name, {"level_percent": str(level)}) or 0.0


@pytest.mark.parametrize(
    ("amount", "reached"),
    [
        ("49.99", []),
        ("50.00", [50]),
        ("79.99", [50]),
        ("80.00", [50, 80]),
        ("99.99", [50, 80]),
        ("100.00", [50, 80, 100]),
    ],
)
def test_a_level_is_reached_to_the_cent(shop: Shop, amount: str, reached: list[int]) -> None:
    budget = shop.budget("100.00")
    shop.ask(amount, key="k")
    assert levels(shop, budget) == [], "the gate writes none"

    assert look(shop) == len(reached)

    assert levels(shop, budget) == reached
    assert look(shop) == 0, "once"


def test_the_row_says_what_was_used_of_which_limit(shop: Shop) -> None:
    budget = shop.budget("100.00")
    shop.ask("85.00", key="k")
    before = sample(80)

    look(shop)

    with reading(shop.world.id):
        rows = find_alerts(shop.world.id, after_id=None, limit=10)
        assert [row.level_percent for row in rows] == [50, 80]
        assert find_alerts(shop.world.id, after_id=rows[0].id, limit=10) == rows[1:]
    assert {str(row.account.id) for row in rows} == {budget}
    assert {(row.used_usd, row.limit_usd) for row in rows} == {(Decimal(85), Decimal(100))}
    assert sample(80) == before + 1


def test_another_month_is_alerted_anew_by_what_is_still_pending(shop: Shop) -> None:
    shop.budget("100.00")
    shop.ask("60.00", key="k")
    now = datetime.now(UTC)
    assert look(shop, at=now) == 1

    later = now.replace(day=1) + timedelta(days=40)
    assert look(shop, at=later) == 1

    with reading(shop.world.id):
        months = {row.month for row in BudgetAlert.objects.filter(tenant_id=shop.world.id)}
    assert months == {date(now.year, now.month, 1), date(later.year, later.month, 1)}


def test_shadow_and_inactive_budgets_alert_nobody(shop: Shop) -> None:
    budget = shop.budget("100.00")
    shop.publish(modes={"terraform": {"default": "shadow"}})
    shop.ask("90.00", key="shadow")
    assert look(shop) == 0
    shop.publish()
    shop.ask("90.00", key="real")
    patched = shop.api.patch(f"budgets/{budget}", {"active": False}, key=shop.world.admin.key)
    assert patched.status_code == 200

    assert look(shop) == 0


def test_a_limit_that_is_lowered_alerts_at_once_and_a_raised_one_takes_nothing_back(
    shop: Shop,
) -> None:
    budget = shop.budget("1000.00")
    shop.ask("90.00", key="k")

    lowered = shop.api.patch(
        f"budgets/{budget}", {"monthly_limit_usd": "100.00"}, key=shop.world.admin.key
    ).json()

    assert [alert["level_percent"] for alert in lowered["alerts"]] == [50, 80]
    shop.api.patch(f"budgets/{budget}", {"monthly_limit_usd": "1000.00"}, key=shop.world.admin.key)
    assert levels(shop, budget) == [50, 80]


def test_an_overrun_alerts_when_it_is_reconciled(shop: Shop) -> None:
    budget = shop.budget("100.00")
    decision = shop.ask("10.00", key="k")

    settled(shop, decision, "120.00")

    assert levels(shop, budget) == [50, 80, 100]


def test_actuals_alert_by_what_was_really_spent(shop: Shop) -> None:
    budget = shop.budget("100.00", basis="actuals")
    now = datetime.now(UTC)
    with transaction(shop.world.id):
        DailyCost.objects.create(
            tenant_id=shop.world.id,
            project_id=PROJECT,
            date=now.date(),
            amount_usd=Decimal(82),
            is_final=True,
            ingested_at=now,
        )

    assert look(shop, at=now) == 2

    assert levels(shop, budget) == [50, 80]


def test_a_limit_of_zero_alerts_once_something_is_used(shop: Shop) -> None:
    budget = shop.budget("0.00")
    shop.grant("reserved", "50.00")
    decision = shop.ask("10.00", key="k")
    assert look(shop) == 0

    settled(shop, decision, "11.00")

    assert levels(shop, budget) == [50, 80, 100]


def test_many_at_once_write_each_alert_once(shop: Shop) -> None:
    shop.budget("100.00")
    shop.ask("100.00", key="k")

    raised = run_in_threads(8, lambda _: look(shop))

    assert sum(raised) == 3
    with reading(shop.world.id):
        assert BudgetAlert.objects.filter(tenant_id=shop.world.id).count() == 3


def test_alerts_that_fail_do_not_fail_what_led_to_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    budget = shop.budget("100.00")
    decision = shop.ask("60.00", key="k")

    def fail(*args: Any, **options: Any) -> int:
        raise DatabaseError("gone")

    monkeypatch.setattr(operations, "raise_budget_alerts", fail)
    assert settled(shop, decision, "60.00")["posted_usd"] == "60.0000"
    monkeypatch.undo()
    assert levels(shop, budget) == []
    assert look(shop) == 1


@pytest.mark.first
def test_the_job_looks_at_every_tenant(shop: Shop, other_tenant: World) -> None:
    shop.budget("100.00")
    shop.ask("60.00", key="k")
    other = Shop(other_tenant)
    budget = other.budget("100.00")
    other.ask("90.00", key="k")
    job = find_job("budget-alerts")
    assert job is not None
    assert job.interval_seconds <= 60

    assert "raised=" in raise_all_budget_alerts()

    assert levels(other, budget) == [50, 80]


def test_the_console_shows_them(shop: Shop) -> None:
    budget = shop.budget("100.00")
    page = page_url("billing_account", budget)
    member = sign_in(shop.world.member)
    assert "Alerts this month" in member.get(page).content.decode()
    shop.ask("85.00", key="k")
    assert look(shop) == 2

    text = " ".join(re.sub("<[^>]+>", " ", member.get(page).content.decode()).split())

    assert re.search(r"Alerts this month 50 % at .+, 80 % at ", text)
