"""What an account can still take, and the order in which grants burn (SPEC 3.5, 5)."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.accounts.domain import GrantState, month_of
from tests.builders import MICROSECOND, NOW, a_budget, a_grant, an_exposure, usd

AMOUNT = st.integers(0, 10**9).map(usd)


@pytest.mark.parametrize("part", ["posted_usd", "pending_usd", "overrun_usd"])
def test_each_kept_total_of_a_budget_takes_of_it(part: str) -> None:
    budget = a_budget(limit=100, **{part: usd(30)})
    assert budget.used_usd(with_shadow=False) == usd(30)
    assert budget.headroom_usd(with_shadow=False) == usd(70)


@pytest.mark.parametrize(
    ("used", "headroom"), [("99.9999", "0.0001"), ("100", "0"), ("100.0001", "0"), ("5000", "0")]
)
def test_headroom_is_never_below_zero(used: str, headroom: str) -> None:
    assert a_budget(limit=100, pending_usd=usd(used)).headroom_usd(with_shadow=False) == usd(
        headroom
    )


def test_shadow_totals_count_only_where_asked() -> None:
    shadow = {"shadow_usd": usd(40)}
    assert a_budget(limit=100, **shadow).headroom_usd(with_shadow=False) == usd(100)
    assert a_budget(limit=100, **shadow).headroom_usd(with_shadow=True) == usd(60)
    assert a_grant(remaining=50, **shadow).headroom_usd(now=NOW, with_shadow=False) == usd(50)
    assert a_grant(remaining=50, **shadow).headroom_usd(now=NOW, with_shadow=True) == usd(10)
    assert a_grant(remaining=30, **shadow).headroom_usd(now=NOW, with_shadow=True) == usd(0)
    assert an_exposure(**shadow).used_usd(with_shadow=False) == usd(0)
    assert an_exposure(**shadow).used_usd(with_shadow=True) == usd(40)


@given(posted=AMOUNT, pending=AMOUNT, overrun=AMOUNT, shadow=AMOUNT, limit=AMOUNT)
def test_used_is_the_sum_of_the_kept_totals(
    posted: object, pending: object, overrun: object, shadow: object, limit: int
) -> None:
    totals = {
        "posted_usd": posted,
        "pending_usd": pending,
        "overrun_usd": overrun,
        "shadow_usd": shadow,
    }
    budget, exposure = a_budget(limit=limit, **totals), an_exposure(**totals)
    for with_shadow in (False, True):
        used = budget.used_usd(with_shadow=with_shadow)
        assert used == sum([posted, pending, overrun], usd(0)) + (shadow if with_shadow else 0)
        assert used == exposure.used_usd(with_shadow=with_shadow)
        assert budget.headroom_usd(with_shadow=with_shadow) == max(0, limit - used)


@pytest.mark.parametrize(
    ("expires_at", "headroom"),
    [
        (None, 50),
        (NOW + MICROSECOND, 50),
        (NOW, 0),
        (NOW - MICROSECOND, 0),
        (NOW.astimezone(timezone(timedelta(hours=9))), 0),
    ],
)
def test_a_grant_offers_nothing_from_its_expiry_on(
    expires_at: datetime | None, headroom: int
) -> None:
    grant = a_grant(remaining=50, expires_at=expires_at)
    assert grant.headroom_usd(now=NOW, with_shadow=False) == usd(headroom)


def test_burn_order_of_many() -> None:
    soon, later = NOW + timedelta(days=1), NOW + timedelta(days=2)
    ordered = [
        a_grant(7, project_id="shop", expires_at=soon, priority=9),
        a_grant(6, project_id="shop", expires_at=later, priority=1),
        a_grant(5, project_id="shop", expires_at=None, priority=0),
        a_grant(4, expires_at=soon, priority=9),
        a_grant(3, expires_at=later, priority=1),
        a_grant(8, expires_at=later, priority=2),
        a_grant(1, priority=0),
        a_grant(2, priority=0),
        a_grant(9, priority=0),
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(ordered, len(ordered))
        assert sorted(shuffled, key=GrantState.burn_key) == ordered


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, 999999, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2026, 12, 1, tzinfo=UTC), date(2026, 12, 1)),
        (datetime(2026, 12, 1, 1, tzinfo=timezone(timedelta(hours=2))), date(2026, 11, 1)),
        (datetime(2026, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2))), date(2027, 1, 1)),
    ],
)
def test_months_are_those_of_utc(moment: datetime, month: date) -> None:
    assert month_of(moment) == month
