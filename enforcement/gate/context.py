"""The computed context of a decision: what the project spends and how risky the change is.

Pure (SPEC 3.4, ECP-001). A change to any rule here raises ``CONTEXT_VERSION``; replay uses the
context stored with the decision. Rules:

- ``mtd_spend_usd``: sum of the month's ingested days up to today.
- ``burn_rate_daily_usd``: mean over the days of this month that have a row; a day without a row
  is unknown, not free.
- ``forecast_eom_usd``: burn rate times the days of the month: observed days count as they were
  on average, the others as the mean.
- anomaly: the newest day against the mean of the up to 28 days with a row before it, when there
  are at least 7: a spike or drop of 50 % and at least 10 US dollars. Where that mean is zero or
  less there is no percentage (it is told as 0) and the dollars alone make a spike.
- risk: points for each factor, see ``_RISK_POINTS``; 25, 50 and 75 begin the next class.
- figures beyond 1e12 are told as 1e12: a context never blocks a gate.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from billing.costs.domain import HISTORY_DAYS
from enforcement.gate.inputs import KNOWN, PARTIAL, GateInput
from valdrix.kernel.money import EXACT, MAGNITUDE_LIMIT, MONTHLY_PLACES, ZERO, round_amount

CONTEXT_VERSION: Final = "1"

FINAL: Final = "final"
ALL_STATUS: Final = "all_status"
NO_DATA: Final = "none"
UNAVAILABLE: Final = "unavailable"

_BASELINE_DAYS: Final = 28
_BASELINE_MINIMUM_DAYS: Final = 7
_ANOMALY_PERCENT: Final = Decimal(50)
_ANOMALY_MINIMUM_USD: Final = Decimal(10)
_LARGE_INCREASE_USD: Final = Decimal(1000)
_VERY_LARGE_INCREASE_USD: Final = Decimal(10000)
_LARGE_SHARE_OF_FORECAST: Final = Decimal("0.20")

_RISK_POINTS: Final[dict[str, int]] = {
    "production_environment": 20,
    "large_increase": 20,
    "very_large_increase": 25,
    "large_share_of_forecast": 20,
    "cost_spike": 25,
    "cost_unknown": 20,
    "cost_partial": 10,
    "no_cost_history": 10,
    "stale_cost_data": 10,
}
_RISK_CLASSES: Final = ((75, "critical"), (50, "high"), (25, "medium"), (0, "low"))


class DayCost(msgspec.Struct, frozen=True):
    """What the project spent on one UTC day, in US dollars."""

    date: date
    amount_usd: Decimal
    is_final: bool


class ComputedContext(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of the project's spending when the decision was made; US dollars."""

    context_version: str
    generated_at: datetime
    month_start: date
    month_end: date
    month_elapsed_days: int
    month_total_days: int
    observed_cost_days: int
    latest_cost_date: date | None
    data_source_mode: str
    mtd_spend_usd: Decimal
    burn_rate_daily_usd: Decimal
    forecast_eom_usd: Decimal
    anomaly_kind: str
    anomaly_delta_usd: Decimal
    anomaly_percent: Decimal
    risk_class: str
    risk_score: int
    risk_factors: tuple[str, ...]


class SpendingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a project's daily costs come to on one UTC day, whatever is asked; US dollars."""

    observed_cost_days: int
    latest_cost_date: date | None
    data_source_mode: str
    mtd_spend_usd: Decimal
    burn_rate_daily_usd: Decimal
    forecast_eom_usd: Decimal
    anomaly_kind: str
    anomaly_delta_usd: Decimal
    anomaly_percent: Decimal


def sum_up(days: Sequence[DayCost] | None, *, today: date) -> SpendingFigures:
    """Return the figures of a project's daily costs.

    :param days: rows in date order, or None when the cost store failed: the figures then are zeros
        and say ``unavailable``. Those after today or ``HISTORY_DAYS`` before it do not count.
    """
    since = today - timedelta(days=HISTORY_DAYS - 1)
    known_days = [day for day in days or () if since <= day.date <= today]
    month_start = today.replace(day=1)
    this_month = [day for day in known_days if day.date >= month_start]
    mtd = sum((day.amount_usd for day in this_month), ZERO)
    burn = _figure(EXACT.divide(mtd, Decimal(len(this_month)))) if this_month else ZERO
    kind, delta, percent = _anomaly(known_days)
    return SpendingFigures(
        observed_cost_days=len(this_month),
        latest_cost_date=known_days[-1].date if known_days else None,
        data_source_mode=_data_source_mode(days, known_days),
        mtd_spend_usd=_figure(mtd),
        burn_rate_daily_usd=burn,
        forecast_eom_usd=_figure(burn * _days_of_month(today)),
        anomaly_kind=kind,
        anomaly_delta_usd=delta,
        anomaly_percent=percent,
    )


def build_context(
    gate_input: GateInput,
    figures: SpendingFigures,
    *,
    now: datetime,
    stale_after_days: int,
) -> ComputedContext:
    """Return the context of a question, from the figures of its project on the day of ``now``.

    :param stale_after_days: the policy's limit for the age of the newest row.
    """
    today = now.astimezone(UTC).date()
    month_start, total_days = today.replace(day=1), _days_of_month(today)
    newest = figures.latest_cost_date
    factors = _risk_factors(
        gate_input,
        forecast=figures.forecast_eom_usd,
        anomaly_kind=figures.anomaly_kind,
        age_days=None if newest is None else (today - newest).days,
        stale_after_days=stale_after_days,
    )
    score, risk_class = _risk(factors)
    return ComputedContext(
        context_version=CONTEXT_VERSION,
        generated_at=now,
        month_start=month_start,
        month_end=month_start + timedelta(days=total_days - 1),
        month_elapsed_days=today.day,
        month_total_days=total_days,
        observed_cost_days=figures.observed_cost_days,
        latest_cost_date=newest,
        data_source_mode=figures.data_source_mode,
        mtd_spend_usd=figures.mtd_spend_usd,
        burn_rate_daily_usd=figures.burn_rate_daily_usd,
        forecast_eom_usd=figures.forecast_eom_usd,
        anomaly_kind=figures.anomaly_kind,
        anomaly_delta_usd=figures.anomaly_delta_usd,
        anomaly_percent=figures.anomaly_percent,
        risk_class=risk_class,
        risk_score=score,
        risk_factors=factors,
    )


def rescore(
    computed: ComputedContext, gate_input: GateInput, *, stale_after_days: int
) -> ComputedContext:
    """Return a stored context with its risk as it is for another environment or staleness limit."""
    newest, today = computed.latest_cost_date, computed.generated_at.astimezone(UTC).date()
    factors = _risk_factors(
        gate_input,
        forecast=computed.forecast_eom_usd,
        anomaly_kind=computed.anomaly_kind,
        age_days=None if newest is None else (today - newest).days,
        stale_after_days=stale_after_days,
    )
    score, risk_class = _risk(factors)
    return msgspec.structs.replace(
        computed, risk_class=risk_class, risk_score=score, risk_factors=factors
    )


def _days_of_month(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _risk(factors: Sequence[str]) -> tuple[int, str]:
    """Return the score of some factors, and its class."""
    score = min(100, sum(_RISK_POINTS[factor] for factor in factors))
    return score, next(name for floor, name in _RISK_CLASSES if score >= floor)


def _data_source_mode(days: Sequence[DayCost] | None, known_days: Sequence[DayCost]) -> str:
    if days is None:
        return UNAVAILABLE
    if not known_days:
        return NO_DATA
    return FINAL if all(day.is_final for day in known_days) else ALL_STATUS


def _anomaly(days: Sequence[DayCost]) -> tuple[str, Decimal, Decimal]:
    """Return kind, difference in US dollars and percent of the newest day."""
    quiet = ("none", ZERO, Decimal("0.00"))
    if not days:
        return quiet
    newest, before = days[-1], days[-1 - _BASELINE_DAYS : -1]
    if len(before) < _BASELINE_MINIMUM_DAYS:
        return quiet
    total = sum((day.amount_usd for day in before), ZERO)
    baseline = EXACT.divide(total, Decimal(len(before)))
    delta = _figure(EXACT.subtract(newest.amount_usd, baseline))
    if baseline <= 0:
        is_spike = min(delta, newest.amount_usd) >= _ANOMALY_MINIMUM_USD
        return ("spike" if is_spike else "none"), delta, Decimal("0.00")
    # Adding zero drops the sign of a negative zero.
    percent = EXACT.quantize(EXACT.divide(delta * 100, baseline), Decimal("0.01")) + 0
    if abs(percent) < _ANOMALY_PERCENT or abs(delta) < _ANOMALY_MINIMUM_USD:
        return "none", delta, percent
    return ("spike" if delta > 0 else "drop"), delta, percent


def _figure(value: Decimal) -> Decimal:
    """Return a figure as its column holds it: 4 decimals, at most 1e12 in magnitude."""
    bounded = max(-MAGNITUDE_LIMIT, min(MAGNITUDE_LIMIT, value))
    return round_amount(bounded, places=MONTHLY_PLACES)


def _risk_factors(
    gate_input: GateInput,
    *,
    forecast: Decimal,
    anomaly_kind: str,
    age_days: int | None,
    stale_after_days: int,
) -> tuple[str, ...]:
    amount = gate_input.amount_usd
    state = gate_input.cost.state
    present = {
        "production_environment": gate_input.environment == "prod",
        "large_increase": _LARGE_INCREASE_USD <= amount < _VERY_LARGE_INCREASE_USD,
        "very_large_increase": amount >= _VERY_LARGE_INCREASE_USD,
        "large_share_of_forecast": (forecast > 0 and amount >= forecast * _LARGE_SHARE_OF_FORECAST),
        "cost_spike": anomaly_kind == "spike",
        "cost_unknown": state not in {KNOWN, PARTIAL},
        "cost_partial": state == PARTIAL,
        "no_cost_history": age_days is None,
        "stale_cost_data": age_days is not None and age_days > stale_after_days,
    }
    return tuple(factor for factor in _RISK_POINTS if present[factor])
