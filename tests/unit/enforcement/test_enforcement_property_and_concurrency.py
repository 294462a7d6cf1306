"""Concurrency of the gate, under the names that release evidence refers to."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World


def test_concurrency_distinct_keys_do_not_oversubscribe_budget_reservations(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("500.00")

    answers = run_in_threads(16, lambda number: shop.ask("100.00", key=f"distinct-{number}"))

    assert Counter(answer["decision"] for answer in answers) == {"ALLOW": 5, "DENY": 11}
    assert shop.budget_state(budget)["pending_usd"] == Decimal(500)
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)
