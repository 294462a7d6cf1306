"""Gates at once: never a cent more than there is, and one decision for one key."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from enforcement.models import Decision, LedgerEntry
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.preflight import build_plan
from valdrix.kernel.db import reading


@pytest.fixture(autouse=True)
def _time_to_wait(settings: Any) -> None:
    """Who waits behind fifty others on a busy machine is not what is asked here."""
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 20_000


def test_a_budget_for_exactly_seven_allows_seven_of_twenty(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("700.00")

    answers = run_in_threads(20, lambda n: shop.ask("100.00", key=f"k{n}"))

    assert Counter(answer["decision"] for answer in answers) == {"ALLOW": 7, "DENY": 13}
    state = shop.budget_state(budget)
    assert (state["pending_usd"], state["headroom_usd"]) == (Decimal(700), Decimal(0))
    assert find_differences(tenant.id) == []
    # Policy and budget, twenty decisions, seven reservations.
    assert check_chain(tenant.id) == 2 + 20 + 7


def test_budget_then_credits_then_nothing_under_contention(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("250.00")
    reserved = shop.grant("reserved", "120.00")
    emergency = shop.grant("emergency", "40.00")

    answers = run_in_threads(20, lambda n: shop.ask("30.00", key=f"k{n}"))

    # 410 in all: thirteen times 30 fit, the fourteenth finds 20 left.
    decided = Counter(answer["decision"] for answer in answers)
    assert decided["ALLOW"] == 8
    assert decided["ALLOW_WITH_CREDITS"] == 5
    assert decided["DENY"] == 7
    assert shop.budget_state(budget)["headroom_usd"] == 0
    grants = [shop.grant_state(reserved), shop.grant_state(emergency)]
    assert sum(state["reserved_amount_usd"] for state in grants) == Decimal(140)
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_fifty_callers_with_one_key_get_one_decision(tenant: World, run_in_threads: Any) -> None:
    shop = Shop(tenant)
    budget = shop.budget("5000.00")

    answers = run_in_threads(50, lambda _: shop.ask("100.00", key="the-key"))

    assert len({answer["decision_id"] for answer in answers}) == 1
    assert Counter(answer["replayed"] for answer in answers) == {False: 1, True: 49}
    first, *others = sorted(answers, key=lambda answer: answer["replayed"])
    assert all({**other, "replayed": False} == first for other in others)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(100)
    with reading(tenant.id):
        assert Decision.objects.filter(tenant_id=tenant.id).count() == 1
        assert LedgerEntry.objects.filter(tenant_id=tenant.id, event="reserved").count() == 1


@pytest.mark.parametrize("ceiling", ["plan_monthly_ceiling_usd", "enterprise_monthly_ceiling_usd"])
def test_a_ceiling_holds_across_projects(tenant: World, run_in_threads: Any, ceiling: str) -> None:
    limits = {"plan_monthly_ceiling_usd": "500.00", ceiling: "500.00"}
    shop = Shop(tenant, limits=limits)
    for number in range(4):
        shop.budget("10000.00", project_id=f"p{number}")

    answers = run_in_threads(16, lambda n: shop.ask("100.00", key=f"k{n}", project_id=f"p{n % 4}"))

    assert Counter(answer["decision"] for answer in answers) == {"ALLOW": 5, "DENY": 11}
    assert find_differences(tenant.id) == []


def test_the_same_computed_change_is_charged_once_by_twenty_runs(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("10000.00")
    plan = build_plan()

    def ask(number: int) -> dict[str, Any]:
        return shop.ask(
            "300.00",
            path="gate/terraform/preflight",
            run_id=f"run-{number}",
            stage="post_plan",
            plan=plan,
        )

    answers = run_in_threads(20, ask)

    assert {answer["decision"] for answer in answers} == {"ALLOW"}
    assert len({answer["decision_id"] for answer in answers}) == 20
    assert Counter(answer["reservation_shared"] for answer in answers) == {False: 1, True: 19}
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    assert find_differences(tenant.id) == []


def test_children_of_one_decision_never_take_more_than_it_holds(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("10000.00")
    parent = shop.ask("500.00", key="parent")

    answers = run_in_threads(
        12,
        lambda n: shop.ask(
            "100.00",
            key=f"child-{n}",
            resource_reference=f"web-{n}",
            parent_decision_id=parent["decision_id"],
        ),
    )

    own = sum(Decimal(answer["reserved_allocation_usd"]) for answer in answers)
    assert own == Decimal(700)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(1200)
    assert find_differences(tenant.id) == []
