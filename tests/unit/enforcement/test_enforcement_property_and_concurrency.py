"""Concurrency of the gate, under the names that release evidence refers to."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing.models import Reservation, SettlementRecord
from enforcement.integrity.queries import run_checks
from enforcement.models import LedgerEntry
from enforcement.reconciliation.operations import reconcile_overdue
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World, system_actor
from valdrix.kernel.db import reading, transaction


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


def test_concurrency_reconcile_same_idempotency_key_settles_credit_once(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget, grant = shop.budget("100.00"), shop.grant("reserved", "50.00")
    decision = shop.ask("140.00")
    path = f"reservations/{decision['decision_id']}/reconcile"
    body = {"actual_monthly_delta_usd": "130.00", "idempotency_key": "the-key"}

    answers = run_in_threads(16, lambda _: Api().post(path, body, key=tenant.admin.key))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    replays = [answer.headers.get("Idempotent-Replayed") for answer in answers]
    assert Counter(replays) == {None: 1, "true": 15}
    state = shop.grant_state(grant)
    assert (state["consumed_amount_usd"], state["remaining_amount_usd"]) == (30, 20)
    assert shop.budget_state(budget)["posted_usd"] == Decimal(100)
    with reading(tenant.id):
        assert SettlementRecord.objects.filter(tenant_id=tenant.id).count() == 1
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_concurrency_reconcile_overdue_claims_each_reservation_once(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("10000.00")
    decisions = [shop.ask("10.00", key=f"k{number}")["decision_id"] for number in range(30)]
    for decision_id in decisions[:10]:
        Api().post(f"reservations/{decision_id}/confirm", {}, key=tenant.member.key)
    with transaction(tenant.id):
        Reservation.objects.filter(tenant_id=tenant.id).update(
            due_at=datetime(2020, 1, 1, tzinfo=UTC)
        )

    counts = run_in_threads(8, lambda _: reconcile_overdue(actor=system_actor(tenant.id)))

    totals: Counter[str] = Counter()
    for count in counts:
        totals.update(count)
    assert totals == {"posted": 10, "released": 20, "inconsistent": 0}
    assert sum(1 for count in counts if count["posted"] + count["released"]) > 1, "one did it all"
    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["pending_usd"]) == (100, 0)
    with reading(tenant.id):
        settled = LedgerEntry.objects.filter(
            tenant_id=tenant.id, event__in=("reconciled", "released")
        )
        assert Counter(str(entry.decision_id) for entry in settled) == dict.fromkeys(decisions, 1)
    assert run_checks(tenant.id).violated == ()
    check_chain(tenant.id)
