"""The computed context: its sums, its anomaly and its risk, by pairs that differ in one fact."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.costs.domain import HISTORY_DAYS
from enforcement.gate.context import (
    CONTEXT_VERSION,
    ComputedContext,
    DayCost,
    build_context,
    sum_up,
)
from tests.builders import NOW, a_cost, an_input, some_days, usd


def context(days: list[DayCost] | None, **changes: Any) -> ComputedContext:
    now = changes.pop("now", NOW)
    return build_context(
        an_input(**{"environment": "nonprod"} | changes),
        sum_up(days, today=now.astimezone(UTC).date()),
        now=now,
        stale_after_days=3,
    )


def test_sums_of_the_month() -> None:
    days = some_days(*[7] * 25)  # from 27 October to 20 November
    found = context(days)
    assert found.mtd_spend_usd == usd(140)
    assert found.burn_rate_daily_usd == usd(7)
    assert found.forecast_eom_usd == usd(210)
    assert (found.month_start, found.month_end) == (date(2026, 11, 1), date(2026, 11, 30))
    assert (found.month_elapsed_days, found.month_total_days) == (20, 30)
    assert (found.observed_cost_days, found.latest_cost_date) == (20, date(2026, 11, 20))
    assert (found.context_version, found.generated_at) == (CONTEXT_VERSION, NOW)


def test_a_day_without_a_row_is_unknown_and_not_free() -> None:
    found = context([*some_days(10, until=date(2026, 11, 5)), *some_days(20)])
    assert found.burn_rate_daily_usd == usd(15)
    assert found.forecast_eom_usd == usd(450)
    assert found.observed_cost_days == 2


def test_means_are_rounded_half_up_once() -> None:
    found = context(some_days("0.0001", "0.0002"))
    assert found.burn_rate_daily_usd == usd("0.0002")
    assert context(some_days(1, 1, "0")).burn_rate_daily_usd == usd("0.6667")


def test_days_beyond_the_history_are_not_used() -> None:
    first = NOW.date() - timedelta(days=HISTORY_DAYS - 1)
    assert context(some_days(10, until=first)).latest_cost_date == first
    found = context(some_days(10, until=first - timedelta(days=1)))
    assert (found.latest_cost_date, found.data_source_mode) == (None, "none")


def test_days_to_come_are_not_used() -> None:
    found = context([*some_days(10), *some_days(99, until=NOW.date() + timedelta(days=1))])
    assert found.mtd_spend_usd == usd(10)
    assert found.latest_cost_date == NOW.date()


@pytest.mark.parametrize(
    ("now", "start"),
    [
        (datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=2))), date(2026, 11, 1)),
        (datetime(2026, 11, 30, 23, 30, tzinfo=timezone(-timedelta(hours=2))), date(2026, 12, 1)),
        (datetime(2026, 11, 30, 23, 59, 59, 999999, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2026, 12, 1, tzinfo=UTC), date(2026, 12, 1)),
    ],
)
def test_days_and_months_are_those_of_utc(now: datetime, start: date) -> None:
    found = context(some_days(5, until=start), now=now)
    assert found.month_start == start
    assert found.month_elapsed_days == now.astimezone(UTC).day
    assert found.mtd_spend_usd == usd(5)


@pytest.mark.parametrize(
    ("now", "days"),
    [
        (datetime(2028, 2, 29, tzinfo=UTC), 29),
        (datetime(2027, 2, 28, tzinfo=UTC), 28),
        (datetime(2026, 12, 31, tzinfo=UTC), 31),
    ],
)
def test_months_end_where_the_calendar_says(now: datetime, days: int) -> None:
    found = context([], now=now)
    assert (found.month_total_days, found.month_end) == (days, now.date().replace(day=days))


@pytest.mark.parametrize(
    ("days", "mode"),
    [
        (None, "unavailable"),
        ([], "none"),
        (some_days(1, until=NOW.date() + timedelta(days=1)), "none"),
        (some_days(1, 2), "final"),
        ([*some_days(1, 2), DayCost(NOW.date(), usd(1), is_final=False)], "all_status"),
    ],
)
def test_where_the_figures_come_from(days: list[DayCost] | None, mode: str) -> None:
    assert context(days).data_source_mode == mode


@pytest.mark.parametrize("days", [None, []])
def test_no_history_and_a_failing_store_give_zeros(days: list[DayCost] | None) -> None:
    found = context(days)
    amounts = (
        found.mtd_spend_usd,
        found.burn_rate_daily_usd,
        found.forecast_eom_usd,
        found.anomaly_delta_usd,
        found.anomaly_percent,
    )
    assert amounts == (0,) * 5
    assert (found.observed_cost_days, found.latest_cost_date) == (0, None)
    assert found.anomaly_kind == "none"
    assert found.risk_factors == ("no_cost_history",)


STEADY = [100] * 7
ANOMALIES = {
    "steady": ([*STEADY, 100], "none", "0", "0.00"),
    "spike at half": ([*STEADY, 150], "spike", "50", "50.00"),
    "one unit below": ([*STEADY, "149.9899"], "none", "49.9899", "49.99"),
    "drop at half": ([*STEADY, 50], "drop", "-50", "-50.00"),
    "drop less than half": ([*STEADY, "50.01"], "none", "-49.99", "-49.99"),
    "ten dollars at least": ([*[20] * 7, 30], "spike", "10", "50.00"),
    "under ten dollars": ([*["19.9998"] * 7, "29.9997"], "none", "9.9999", "50.00"),
    "too little before it": ([100] * 6 + [900], "none", "0", "0.00"),
    "nothing before, dollars alone": ([*[0] * 7, 10], "spike", "10", "0.00"),
    "nothing before, few dollars": ([*[0] * 7, "9.9999"], "none", "9.9999", "0.00"),
    "refunds before, nothing now": ([*[-50] * 7, 0], "none", "50", "0.00"),
    "refunds before, spending now": ([*[-50] * 7, 500], "spike", "550", "0.00"),
    "no negative zero": ([*[10**6] * 7, "999999.9999"], "none", "-0.0001", "0.00"),
    "only 28 rows count": ([10**6, *[100] * 28, 150], "spike", "50", "50.00"),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_anomaly(name: str) -> None:
    amounts, kind, delta, percent = ANOMALIES[name]
    found = context(some_days(*amounts))
    assert (found.anomaly_kind, found.anomaly_delta_usd) == (kind, usd(delta))
    assert str(found.anomaly_percent) == percent
    assert ("cost_spike" in found.risk_factors) == (kind == "spike")


QUIET = some_days(*[100_000] * 8)
RISKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "production_environment": ({"environment": "prod"}, {}),
    "large_increase": ({"cost": a_cost(1000)}, {"cost": a_cost("999.9999")}),
    "very_large_increase": ({"cost": a_cost(10_000)}, {"cost": a_cost("9999.9999")}),
    "cost_unknown": ({"cost": a_cost(None)}, {}),
    "cost_partial": ({"cost": a_cost(state="partial")}, {}),
    "no_cost_history": ({"days": []}, {}),
    "stale_cost_data": (
        {"days": some_days(*[10**5] * 8, until=NOW.date() - timedelta(days=4))},
        {"days": some_days(*[10**5] * 8, until=NOW.date() - timedelta(days=3))},
    ),
    "large_share_of_forecast": (
        {"days": some_days(*["16.6665"] * 8)},  # forecast 499.995, a fifth is 99.999
        {"days": some_days(*["16.6667"] * 8)},  # forecast 500.001, a fifth is 100.0002
    ),
    "cost_spike": (
        {"days": some_days(*[10**5] * 7, 150_000)},
        {"days": some_days(*[10**5] * 7, 149_990)},
    ),
}


@pytest.mark.parametrize("factor", RISKS)
def test_each_risk_factor_by_one_fact(factor: str) -> None:
    present, absent = RISKS[factor]
    for facts, expected in ((present, True), (absent, False)):
        changes = {"days": QUIET} | facts
        found = context(changes.pop("days"), **changes)
        assert (factor in found.risk_factors) == expected


def test_a_large_increase_counts_once() -> None:
    factors = context(QUIET, cost=a_cost(10_000)).risk_factors
    assert "large_increase" not in factors


@pytest.mark.parametrize(
    ("changes", "score", "name"),
    [
        ({}, 0, "low"),
        ({"environment": "prod"}, 20, "low"),
        ({"cost": a_cost(10_000)}, 25, "medium"),
        ({"cost": a_cost(10_000), "environment": "prod"}, 45, "medium"),
        ({"cost": a_cost(10**9), "environment": "prod"}, 65, "high"),
        ({"cost": a_cost(10**9), "environment": "prod", "days": "spike"}, 90, "critical"),
    ],
)
def test_points_make_a_class(changes: dict[str, Any], score: int, name: str) -> None:
    days = some_days(*[10**5] * 7, 10**6) if changes.get("days") else QUIET
    found = context(days, **{key: value for key, value in changes.items() if key != "days"})
    assert (found.risk_score, found.risk_class) == (score, name)


@pytest.mark.parametrize("amount", [10**12, -(10**12)])
def test_absurd_figures_are_bounded_and_never_raise(amount: int) -> None:
    found = context(some_days(*[amount] * HISTORY_DAYS))
    assert abs(found.forecast_eom_usd) == abs(found.mtd_spend_usd) == usd(10**12)


AMOUNTS = st.integers(-(10**16), 10**16).map(lambda units: Decimal(units).scaleb(-4))


@settings(deadline=None, max_examples=200)
@given(
    amounts=st.lists(AMOUNTS, max_size=HISTORY_DAYS),
    cost=st.none() | AMOUNTS,
    age=st.integers(0, 40),
)
def test_whatever_was_ingested_a_context_comes_of_it(
    amounts: list[Decimal], cost: Decimal | None, age: int
) -> None:
    days = [
        DayCost(NOW.date() - timedelta(days=len(amounts) - place + age), amount, is_final=True)
        for place, amount in enumerate(amounts)
    ]
    found = context(days, cost=a_cost(cost))
    for name in ("mtd_spend_usd", "burn_rate_daily_usd", "forecast_eom_usd", "anomaly_delta_usd"):
        value = getattr(found, name)
        assert value.as_tuple().exponent == -4
        assert abs(value) <= 10**12
        assert value or not value.is_signed(), "no negative zero"
    assert 0 <= found.risk_score <= 100
    stored = msgspec.json.encode(found)
    assert msgspec.json.decode(stored, type=ComputedContext) == found
