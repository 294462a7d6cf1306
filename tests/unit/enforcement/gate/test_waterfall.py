"""The five stages: what each limits, what is held of which account, and in which order (SPEC 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.domain import BudgetState, GrantState
from billing.reservations.models import LINE_KINDS
from enforcement.gate import waterfall
from enforcement.gate.waterfall import Accounts, Waterfall, run_waterfall
from tests.builders import (
    CENT_OF_CENT,
    EXPOSURE_ID,
    MICROSECOND,
    NOW,
    a_budget,
    a_grant,
    account_id,
    an_exposure,
    some_accounts,
    usd,
)

STAGES = (
    "plan_limit",
    "project_allocation",
    "reserved_credits",
    "emergency_credits",
    "enterprise_ceiling",
)


def run(
    accounts: Accounts, amount: str | int | Decimal = 100, *, with_shadow: bool = False
) -> Waterfall:
    return run_waterfall(accounts, requested_usd=usd(amount), now=NOW, with_shadow=with_shadow)


def statuses(fall: Waterfall) -> str:
    return " ".join(stage.status for stage in fall.stages)


def held(fall: Waterfall, kind: str) -> list[tuple[str, str]]:
    return [
        (line.account_id[-2:], str(line.amount_usd)) for line in fall.holds if line.kind == kind
    ]


@pytest.mark.parametrize(
    "accounts",
    [
        some_accounts(),
        some_accounts(budgets=()),
        some_accounts(grants=(a_grant(), a_grant(12, pool="emergency"))),
        some_accounts(plan_ceiling_usd=usd(0), enterprise_ceiling_usd=usd(0)),
    ],
)
@pytest.mark.parametrize("amount", [0, 1, 100, 10**9])
def test_all_five_stages_are_recorded_in_their_order(accounts: Accounts, amount: int) -> None:
    assert tuple(stage.stage for stage in run(accounts, amount).stages) == STAGES


@dataclass(frozen=True)
class Case:
    accounts: Accounts
    statuses: str
    parts: str
    """Allocation, reserved, emergency, uncovered."""
    code: str | None


GRANTS = (a_grant(11, remaining=30), a_grant(12, pool="emergency", remaining=20))
CASES = {
    "the budget covers it": Case(
        some_accounts(), "pass pass skipped skipped skipped", "100 0 0 0", None
    ),
    "exactly the budget": Case(
        some_accounts(budgets=(a_budget(limit=100),)),
        "pass pass skipped skipped skipped",
        "100 0 0 0",
        None,
    ),
    "one unit too little budget": Case(
        some_accounts(budgets=(a_budget(limit="99.9999"),)),
        "pass limited limited limited skipped",
        "99.9999 0 0 0.0001",
        "project_budget_exceeded",
    ),
    "exactly the reserved credits": Case(
        some_accounts(budgets=(a_budget(limit=70),), grants=GRANTS),
        "pass limited pass skipped skipped",
        "70 30 0 0",
        "project_budget_exceeded",
    ),
    "one unit of emergency credits": Case(
        some_accounts(budgets=(a_budget(limit="69.9999"),), grants=GRANTS),
        "pass limited limited pass skipped",
        "69.9999 30 0.0001 0",
        "project_budget_exceeded",
    ),
    "exactly all credits": Case(
        some_accounts(budgets=(a_budget(limit=50),), grants=GRANTS),
        "pass limited limited pass skipped",
        "50 30 20 0",
        "project_budget_exceeded",
    ),
    "one unit beyond all credits": Case(
        some_accounts(budgets=(a_budget(limit="49.9999"),), grants=GRANTS),
        "pass limited limited limited skipped",
        "49.9999 30 20 0.0001",
        "project_budget_exceeded",
    ),
    "no budget: nothing for credits to stand in for": Case(
        some_accounts(budgets=(), grants=GRANTS),
        "pass skipped skipped skipped skipped",
        "0 0 0 0",
        None,
    ),
    "exactly the plan ceiling": Case(
        some_accounts(plan_ceiling_usd=usd(100)),
        "pass pass skipped skipped skipped",
        "100 0 0 0",
        None,
    ),
    "one unit above the plan ceiling": Case(
        some_accounts(plan_ceiling_usd=usd("99.9999")),
        "limited pass skipped skipped skipped",
        "100 0 0 0",
        "plan_limit_exceeded",
    ),
    "exactly the enterprise ceiling": Case(
        some_accounts(enterprise_ceiling_usd=usd(100)),
        "pass pass skipped skipped pass",
        "100 0 0 0",
        None,
    ),
    "one unit above the enterprise ceiling": Case(
        some_accounts(enterprise_ceiling_usd=usd("99.9999")),
        "pass pass skipped skipped limited",
        "100 0 0 0",
        "enterprise_ceiling_exceeded",
    ),
    "everything limits: the first stage gives the code": Case(
        some_accounts(
            budgets=(a_budget(limit=0),),
            plan_ceiling_usd=usd(1),
            enterprise_ceiling_usd=usd(1),
        ),
        "limited limited limited limited limited",
        "0 0 0 100",
        "plan_limit_exceeded",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_stages_by_example(name: str) -> None:
    case = CASES[name]
    fall = run(case.accounts)
    parts = (
        fall.allocation_usd,
        fall.reserved_credit_usd,
        fall.emergency_credit_usd,
        fall.uncovered_usd,
    )
    assert statuses(fall) == case.statuses
    assert parts == tuple(usd(part) for part in case.parts.split())
    limiting = fall.limiting_stage
    assert (limiting.reason_code if limiting else None) == case.code


def test_what_one_stage_leaves_the_next_is_asked_for() -> None:
    fall = run(some_accounts(budgets=(a_budget(limit=40),), grants=GRANTS))
    asked = [str(stage.requested_usd) for stage in fall.stages]
    consumed = [str(stage.consumed_usd) for stage in fall.stages]
    assert asked == ["100.0000", "100.0000", "60.0000", "30.0000", "100.0000"]
    assert consumed == ["100.0000", "40.0000", "30.0000", "20.0000", "0.0000"]
    assert fall.uncovered_usd == usd(10)


def test_without_a_budget_the_stage_says_so_and_consumes_nothing() -> None:
    fall = run(some_accounts(budgets=(), grants=GRANTS))
    stage = fall.stages[1]
    assert (stage.status, stage.reason_code) == ("skipped", "no_budget_configured")
    assert (stage.limit_usd, stage.headroom_usd, stage.consumed_usd) == (None, None, usd(0))
    assert fall.allocation_usd == 0
    assert [(line.kind, line.amount_usd) for line in fall.holds] == [("exposure", usd(100))]


def test_without_an_enterprise_ceiling_its_stage_is_skipped_but_told() -> None:
    stage = run(some_accounts()).stages[4]
    assert (stage.status, stage.reason_code) == ("skipped", "no_ceiling_configured")
    assert (stage.limit_usd, stage.headroom_usd, stage.consumed_usd) == (None, None, usd(0))


@pytest.mark.parametrize("part", ["posted_usd", "pending_usd", "overrun_usd"])
def test_each_kept_total_takes_of_its_limit(part: str) -> None:
    fits = {part: usd(900)}
    over = {part: usd(900) + CENT_OF_CENT}
    assert run(some_accounts(budgets=(a_budget(**fits),))).stages[1].status == "pass"
    assert run(some_accounts(budgets=(a_budget(**over),))).stages[1].status == "limited"
    ceilings = {"plan_ceiling_usd": usd(1000), "enterprise_ceiling_usd": usd(1000)}
    assert statuses(run(some_accounts(exposure=an_exposure(**fits), **ceilings))).split()[::4] == [
        "pass",
        "pass",
    ]
    assert statuses(run(some_accounts(exposure=an_exposure(**over), **ceilings))).split()[::4] == [
        "limited",
        "limited",
    ]


def test_shadow_totals_limit_shadow_only() -> None:
    shadow = {"shadow_usd": usd(950)}
    accounts = some_accounts(
        budgets=(a_budget(**shadow),),
        grants=(a_grant(remaining=1000, **shadow),),
        exposure=an_exposure(**shadow),
        plan_ceiling_usd=usd(1000),
        enterprise_ceiling_usd=usd(1000),
    )
    real, shadowed = run(accounts), run(accounts, with_shadow=True)
    assert statuses(real) == "pass pass skipped skipped pass"
    assert statuses(shadowed) == "limited limited pass skipped limited"
    assert shadowed.stages[1].used_usd == usd(950)
    assert shadowed.stages[2].headroom_usd == usd(50)


def test_every_matching_budget_is_charged_and_the_smallest_headroom_limits() -> None:
    accounts = some_accounts(
        budgets=(
            a_budget(1, limit=1000),
            a_budget(2, limit=500, environment="prod", pending_usd=usd(440)),
            a_budget(3, limit=80, team="web"),
        ),
        grants=(a_grant(remaining=100),),
    )
    fall = run(accounts)
    assert held(fall, "allocation") == [("01", "60.0000"), ("02", "60.0000"), ("03", "60.0000")]
    assert fall.reserved_credit_usd == usd(40)
    stage = fall.stages[1]
    assert (stage.limit_usd, stage.used_usd, stage.headroom_usd) == (usd(500), usd(440), usd(60))


@pytest.mark.parametrize("order", [1, -1])
def test_the_tightest_budget_is_told_whatever_the_order_they_were_read_in(order: int) -> None:
    budgets = (a_budget(1, limit=70), a_budget(2, limit=90, pending_usd=usd(20)))[::order]
    assert run(some_accounts(budgets=budgets)).stages[1].limit_usd == usd(70)


def test_an_account_above_its_limit_has_no_headroom_and_never_less() -> None:
    accounts = some_accounts(
        budgets=(a_budget(limit=10, overrun_usd=usd(500)),),
        exposure=an_exposure(overrun_usd=usd(500)),
        plan_ceiling_usd=usd(10),
    )
    fall = run(accounts)
    assert [stage.headroom_usd for stage in fall.stages[:2]] == [usd(0), usd(0)]
    assert [stage.consumed_usd for stage in fall.stages[:2]] == [usd(0), usd(0)]
    assert statuses(run(accounts, 0)) == "pass pass skipped skipped skipped"


SOON, LATER = NOW + timedelta(days=1), NOW + timedelta(days=2)
BURN_ORDER = {
    "project before tenant-wide": (
        a_grant(2, project_id="shop", expires_at=None, priority=200),
        a_grant(1, project_id=None, expires_at=SOON, priority=1),
    ),
    "earlier expiry first": (
        a_grant(2, expires_at=SOON, priority=200),
        a_grant(1, expires_at=LATER, priority=1),
    ),
    "one microsecond earlier": (
        a_grant(2, expires_at=LATER - MICROSECOND),
        a_grant(1, expires_at=LATER),
    ),
    "an expiry before none": (
        a_grant(2, expires_at=LATER, priority=200),
        a_grant(1, expires_at=None, priority=1),
    ),
    "lower priority number first": (a_grant(2, priority=1), a_grant(1, priority=2)),
    "older id first": (a_grant(1), a_grant(2)),
    "the same moment in another zone is the same expiry": (
        a_grant(1, expires_at=SOON.astimezone(timezone(timedelta(hours=5)))),
        a_grant(2, expires_at=SOON),
    ),
}


@pytest.mark.parametrize("pool", ["reserved", "emergency"])
@pytest.mark.parametrize("name", BURN_ORDER)
def test_burn_order(name: str, pool: str) -> None:
    first, second = BURN_ORDER[name]
    grants = [
        a_grant(
            int(grant.account_id[-2:]),
            pool=pool,
            remaining=60,
            project_id=grant.project_id,
            expires_at=grant.expires_at,
            priority=grant.priority,
        )
        for grant in (first, second)
    ]
    expected = [(first.account_id[-2:], "60.0000"), (second.account_id[-2:], "40.0000")]
    for given_order in (grants, grants[::-1]):
        accounts = some_accounts(budgets=(a_budget(limit=0),), grants=tuple(given_order))
        assert held(run(accounts), f"{pool}_credit") == expected


@pytest.mark.parametrize(
    ("expires_at", "headroom"),
    [(NOW - MICROSECOND, 0), (NOW, 0), (NOW + MICROSECOND, 50), (None, 50)],
)
def test_a_grant_ends_at_its_expiry(expires_at: object, headroom: int) -> None:
    accounts = some_accounts(
        budgets=(a_budget(limit=50),), grants=(a_grant(expires_at=expires_at),)
    )
    fall = run(accounts)
    assert fall.stages[2].headroom_usd == usd(headroom)
    assert fall.uncovered_usd == usd(50 - headroom)


def test_the_pools_are_apart() -> None:
    accounts = some_accounts(
        budgets=(a_budget(limit=0),),
        grants=(a_grant(1, pool="emergency", remaining=100, project_id="shop"),),
    )
    fall = run(accounts)
    assert held(fall, "reserved_credit") == []
    assert held(fall, "emergency_credit") == [("01", "100.0000")]
    assert statuses(fall).split()[2:4] == ["limited", "pass"]


def test_a_grant_that_gives_nothing_gets_no_line() -> None:
    grants = (a_grant(1, remaining=0), a_grant(2, remaining=100), a_grant(3, remaining=100))
    fall = run(some_accounts(budgets=(a_budget(limit=0),), grants=grants))
    assert held(fall, "reserved_credit") == [("02", "100.0000")]


def test_the_exposure_line_is_last_and_for_the_whole_increase() -> None:
    fall = run(some_accounts(budgets=(a_budget(limit=40),), grants=GRANTS))
    assert [line.kind for line in fall.holds] == [
        "allocation",
        "reserved_credit",
        "emergency_credit",
        "exposure",
    ]
    assert (fall.holds[-1].account_id, fall.holds[-1].amount_usd) == (EXPOSURE_ID, usd(100))


def test_line_kinds_are_those_that_reservations_write() -> None:
    kinds = (
        waterfall.ALLOCATION,
        waterfall.RESERVED_CREDIT,
        waterfall.EMERGENCY_CREDIT,
        waterfall.EXPOSURE,
    )
    assert set(kinds) < set(LINE_KINDS)


AMOUNTS = st.integers(0, 3_000_000).map(lambda units: Decimal(units) * CENT_OF_CENT)


@st.composite
def _accounts(draw: st.DrawFn) -> Accounts:
    budgets = tuple(
        BudgetState(
            account_id=account_id(number),
            project_id="shop",
            environment=None,
            team=None,
            basis="run_rate",
            limit_usd=draw(AMOUNTS),
            posted_usd=draw(AMOUNTS),
            pending_usd=draw(AMOUNTS),
            overrun_usd=draw(AMOUNTS),
            shadow_usd=draw(AMOUNTS),
        )
        for number in range(draw(st.integers(0, 3)))
    )
    grants = tuple(
        GrantState(
            account_id=account_id(number),
            pool=draw(st.sampled_from(["reserved", "emergency"])),
            project_id=draw(st.sampled_from([None, "shop"])),
            priority=draw(st.integers(0, 3)),
            expires_at=draw(st.sampled_from([None, NOW - MICROSECOND, NOW, SOON, LATER])),
            remaining_usd=draw(AMOUNTS),
            shadow_usd=draw(AMOUNTS),
        )
        for number in range(10, 10 + draw(st.integers(0, 5)))
    )
    return Accounts(
        budgets=budgets,
        grants=grants,
        exposure=an_exposure(pending_usd=draw(AMOUNTS), shadow_usd=draw(AMOUNTS)),
        plan_ceiling_usd=draw(AMOUNTS),
        enterprise_ceiling_usd=draw(st.none() | AMOUNTS),
    )


@settings(deadline=None, max_examples=300)
@given(accounts=_accounts(), amount=AMOUNTS, with_shadow=st.booleans())
def test_nothing_is_lost_and_nothing_held_beyond_headroom(
    accounts: Accounts, amount: Decimal, with_shadow: bool
) -> None:
    fall = run(accounts, amount, with_shadow=with_shadow)
    parts = (fall.allocation_usd, fall.reserved_credit_usd, fall.emergency_credit_usd)
    assert min(*parts, fall.uncovered_usd) >= 0
    assert sum(parts) + fall.uncovered_usd == (amount if accounts.budgets else 0)

    lines = {(line.kind, line.account_id): line.amount_usd for line in fall.holds}
    assert len(lines) == len(fall.holds), "an account is held once"
    for budget in accounts.budgets:
        own = lines[waterfall.ALLOCATION, budget.account_id]
        assert own == fall.allocation_usd
        assert own <= budget.headroom_usd(with_shadow=with_shadow)
    for pool, total in (("reserved", parts[1]), ("emergency", parts[2])):
        taken = {key[1]: value for key, value in lines.items() if key[0] == f"{pool}_credit"}
        assert sum(taken.values()) == total
        for grant in accounts.grants:
            room = grant.headroom_usd(now=NOW, with_shadow=with_shadow)
            assert taken.get(grant.account_id, Decimal(0)) <= (room if grant.pool == pool else 0)
    assert lines[waterfall.EXPOSURE, EXPOSURE_ID] == amount


@settings(deadline=None, max_examples=200)
@given(accounts=_accounts(), amount=AMOUNTS, with_shadow=st.booleans())
def test_stages_agree_with_themselves(
    accounts: Accounts, amount: Decimal, with_shadow: bool
) -> None:
    for stage in run(accounts, amount, with_shadow=with_shadow).stages:
        assert 0 <= stage.consumed_usd <= stage.requested_usd
        assert (stage.status == "pass") == (stage.reason_code is None)
        if stage.status == "limited":
            assert stage.consumed_usd == stage.headroom_usd < stage.requested_usd
        if stage.status == "pass":
            assert stage.headroom_usd is not None
            assert stage.consumed_usd == stage.requested_usd <= stage.headroom_usd


@settings(deadline=None, max_examples=200)
@given(accounts=_accounts(), amounts=st.tuples(AMOUNTS, AMOUNTS))
def test_a_larger_amount_is_never_covered_better(
    accounts: Accounts, amounts: tuple[Decimal, Decimal]
) -> None:
    small, large = (run(accounts, amount) for amount in sorted(amounts))
    assert small.uncovered_usd <= large.uncovered_usd
    assert small.emergency_credit_usd <= large.emergency_credit_usd
    for name in ("plan_limit", "project_allocation", "enterprise_ceiling"):
        assert large.is_limited(name) or not small.is_limited(name)
