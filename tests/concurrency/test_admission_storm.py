"""Pipelines and admissions at once: one change is one charge, whoever comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from billing.models import Charge, Reservation
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.kubernetes import DECISION, MONTHLY, a_review, an_object, send_review
from valdrix.kernel.db import reading

TRUSTING = {"trust_object_annotations": True}
THREADS = 20


def admission(shop: Shop, name: str, monthly: str, decision: str) -> dict[str, Any]:
    annotations = {
        "valdrix.io/project": "shop",
        "valdrix.io/environment": "dev",
        MONTHLY: monthly,
        DECISION: decision,
    }
    thing = an_object(name=name, annotations=annotations)
    return send_review(a_review(thing), key=shop.world.key)


def test_a_pipeline_and_its_admissions_are_one_charge_under_twenty_threads(
    tenant: World, run_in_threads: Callable[..., list[object]], settings: Any
) -> None:
    """Each object of ten is admitted twice at once, and together they are what the pipeline holds."""
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 20_000
    shop = Shop(tenant, k8s=TRUSTING)
    budget = shop.budget("1000.00")
    decision = shop.ask("300.00")["decision_id"]

    answers = run_in_threads(
        THREADS, lambda number: admission(shop, f"web-{number % 10}", "30.00", decision)
    )

    assert all(answer["allowed"] for answer in answers)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    with reading(tenant.id):
        root = Charge.objects.get(tenant_id=tenant.id, own_usd__gt=0)
        assert (root.own_usd, root.taken_usd) == (Decimal(300), Decimal(300))
        parts = Reservation.objects.filter(tenant_id=tenant.id, taken_usd__gt=0)
        assert Counter(parts.values_list("taken_usd", flat=True)) == {Decimal(30): 10}
    # The second of each pair got the first one's decision.
    ids = Counter(answer["auditAnnotations"]["decision-id"] for answer in answers)
    assert sorted(ids.values()) == [2] * 10
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_admissions_that_name_one_decision_take_each_part_once(
    tenant: World, run_in_threads: Callable[..., list[object]], settings: Any
) -> None:
    """Twenty ask for more than there is: what the pipeline holds is shared, the rest is charged."""
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 20_000
    shop = Shop(tenant, k8s=TRUSTING)
    budget = shop.budget("600.00")
    decision = shop.ask("130.00")["decision_id"]

    answers = run_in_threads(
        THREADS, lambda number: admission(shop, f"web-{number}", "50.00", decision)
    )

    allowed = sum(answer["allowed"] for answer in answers)
    # 600 is 130 of the pipeline and 470 new: with what is shared, twelve times 50 fit.
    assert allowed == 12
    assert shop.budget_state(budget)["pending_usd"] == Decimal(600)
    with reading(tenant.id):
        taken = Reservation.objects.filter(tenant_id=tenant.id).values_list("taken_usd", flat=True)
        assert sum(taken) == Decimal(130)
    assert find_differences(tenant.id) == []


def test_one_change_is_charged_once_however_many_ask_at_once(
    tenant: World, run_in_threads: Callable[..., list[object]], settings: Any
) -> None:
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 20_000
    shop = Shop(tenant, k8s=TRUSTING)
    budget = shop.budget("1000.00")

    answers = run_in_threads(THREADS, lambda number: admission(shop, "web", "30.00", "none"))

    assert len({answer["auditAnnotations"]["decision-id"] for answer in answers}) == 1
    assert shop.budget_state(budget)["pending_usd"] == Decimal(30)
    assert find_differences(tenant.id) == []
