"""Settlement: what was really spent against what was held, to the cent (SPEC 5)."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.models import Reservation, SettlementRecord
from enforcement.models import LedgerEntry
from enforcement.reconciliation.operations import reconcile_overdue
from governance.audit.operations import Actor
from governance.models import Incident
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.preflight import build_plan, build_preflight
from valdrix.kernel.db import reading, transaction


def reconcile(shop: Shop, decision: Any, actual: str, **members: Any) -> Any:
    identity = decision if isinstance(decision, str) else decision["decision_id"]
    body = {"actual_monthly_delta_usd": actual, **members}
    return Api().post(f"reservations/{identity}/reconcile", body, key=shop.world.admin.key)


def settled(shop: Shop, decision: Any, actual: str, **members: Any) -> dict[str, Any]:
    response = reconcile(shop, decision, actual, **members)
    assert response.status_code == 200, response.content
    document: dict[str, Any] = response.json()
    return document


def make_due(world: World) -> None:
    """Move every reservation's time limit into the past, as waiting for it would."""
    with transaction(world.id):
        for row in Reservation.objects.filter(tenant_id=world.id):
            Reservation.objects.filter(pk=row.pk).update(
                due_at=row.reserved_at - timedelta(seconds=1)
            )


def overdue(shop: Shop) -> dict[str, int]:
    response = Api().post("reservations/reconcile-overdue", {}, key=shop.world.admin.key)
    assert response.status_code == 200, response.content
    document: dict[str, int] = response.json()
    return document


def test_less_than_reserved_goes_back_in_reverse_burn_order(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    first = shop.grant("reserved", "50.00", project_id="shop")
    second = shop.grant("reserved", "50.00")
    emergency = shop.grant("emergency", "50.00")
    decision = shop.ask("230.00")
    assert decision["decision"] == "ALLOW_WITH_CREDITS"

    result = settled(shop, decision, "160.00")

    assert (result["posted_usd"], result["overrun_usd"], result["drift_usd"]) == (
        "160.0000",
        "0.0000",
        "-70.0000",
    )
    amounts = {row["grant_id"]: row for row in result["credit_settlement"]}
    assert [amounts[g]["consumed_usd"] for g in (first, second, emergency)] == [
        "50.0000",
        "10.0000",
        "0.0000",
    ]
    assert shop.grant_state(second)["remaining_amount_usd"] == Decimal(40)
    assert shop.grant_state(emergency)["remaining_amount_usd"] == Decimal(50)
    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["pending_usd"], state["headroom_usd"]) == (100, 0, 0)
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_more_than_reserved_is_an_overrun_never_taken_from_grants(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    grant = shop.grant("reserved", "500.00")
    decision = shop.ask("80.00")

    result = settled(shop, decision, "130.00")

    assert (result["posted_usd"], result["overrun_usd"]) == ("80.0000", "50.0000")
    assert result["exception_reason"] == "drift_above_threshold"
    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["overrun_usd"], state["headroom_usd"]) == (80, 50, 0)
    assert shop.grant_state(grant)["remaining_amount_usd"] == Decimal(500)
    listed = Api().get("reservations/reconciliation-exceptions", key=tenant.admin.key).json()
    assert [row["decision_id"] for row in listed["results"]] == [decision["decision_id"]]
    assert find_differences(tenant.id) == []


def test_a_saving_takes_back_what_the_month_posted_and_no_more(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    settled(shop, shop.ask("80.00"), "80.00")
    saving = shop.ask("-200.00")

    result = settled(shop, saving, "-200.00")

    assert result["posted_usd"] == "-80.0000"
    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["headroom_usd"]) == (0, 100)
    assert find_differences(tenant.id) == []


def test_a_family_settles_once_and_names_its_decisions(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    parent = shop.ask("300.00", key="p")
    child = shop.ask(
        "400.00", key="c", resource_reference="x", parent_decision_id=parent["decision_id"]
    )

    result = settled(shop, child, "350.00")

    assert sorted(result["decision_ids"]) == sorted([parent["decision_id"], child["decision_id"]])
    assert result["reserved_usd"] == "400.0000"
    again = reconcile(shop, parent, "350.00")
    assert (again.status_code, again.json()["code"]) == (409, "reservation_not_active")
    assert shop.budget_state(budget)["posted_usd"] == Decimal(350)
    assert find_differences(tenant.id) == []


def test_the_same_key_and_payload_get_the_first_answer(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    decision = shop.ask("300.00")

    first = reconcile(shop, decision, "250.00", idempotency_key="k")
    again = reconcile(shop, decision, "250.00", idempotency_key="k")
    other = reconcile(shop, decision, "251.00", idempotency_key="k")

    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    with reading(tenant.id):
        assert SettlementRecord.objects.filter(tenant_id=tenant.id).count() == 1


@pytest.mark.parametrize("amount", ["150.00"])
def test_a_refused_decision_holds_nothing_to_settle(tenant: World, amount: str) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")

    response = reconcile(shop, shop.ask(amount), "1.00")

    assert (response.status_code, response.json()["code"]) == (409, "reservation_not_active")


def test_foreign_and_unknown_decisions_are_404(tenant: World, other_tenant: World) -> None:
    shop, other = Shop(tenant), Shop(other_tenant)
    other.budget("1000.00")
    foreign = other.ask("10.00")["decision_id"]

    for identity in (foreign, "01a1f96f-0000-7000-8000-000000000000"):
        assert reconcile(shop, identity, "1.00").status_code == 404
        response = Api().post(f"reservations/{identity}/confirm", {}, key=tenant.member.key)
        assert response.status_code == 404
    with reading(other_tenant.id):
        assert Reservation.objects.get(decision_id=foreign).state == "active"


def test_overdue_releases_unconfirmed_and_posts_confirmed(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    grant = shop.grant("reserved", "100.00")
    applied, forgotten = shop.ask("300.00", key="a"), shop.ask("800.00", key="b")
    confirm = Api().post(
        f"reservations/{applied['decision_id']}/confirm", {}, key=tenant.member.key
    )
    assert confirm.json()["decision_ids"] == [applied["decision_id"]]
    assert overdue(shop) == {"posted": 0, "released": 0, "inconsistent": 0}
    make_due(tenant)

    assert overdue(shop) == {"posted": 1, "released": 1, "inconsistent": 0}

    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["pending_usd"]) == (300, 0)
    assert shop.grant_state(grant)["remaining_amount_usd"] == Decimal(100)
    with reading(tenant.id):
        events = list(
            LedgerEntry.objects.filter(
                tenant_id=tenant.id, decision_id=forgotten["decision_id"]
            ).values_list("event", flat=True)
        )
    assert events[-1] == "released"
    assert overdue(shop) == {"posted": 0, "released": 0, "inconsistent": 0}
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_post_apply_confirms_the_run(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    for stage in ("post_plan", "post_apply"):
        Api().post("gate/terraform/preflight", build_preflight(stage=stage), key=tenant.member.key)
    later = (
        Api()
        .post(
            "gate/terraform/preflight",
            build_preflight(run_id="run-2", plan=build_plan()),
            key=tenant.member.key,
        )
        .json()
    )

    # A confirmed change was applied: asking for it again is another change of the same kind.
    assert not later["reservation_shared"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(600)
    with reading(tenant.id):
        assert LedgerEntry.objects.filter(tenant_id=tenant.id, event="confirmed").count() == 1


def test_lines_that_do_not_add_up_change_nothing_and_open_an_incident(
    tenant: World, owner_cursor: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    broken, sound = shop.ask("300.00", key="a"), shop.ask("200.00", key="b")
    owner_cursor.execute(
        "UPDATE billing_reservation_line SET amount_usd = 299"
        " WHERE reservation_id = %s AND kind = 'exposure'",
        [broken["decision_id"]],
    )

    response = reconcile(shop, broken, "300.00")

    assert (response.status_code, response.json()["code"]) == (409, "settlement_inconsistent")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(500)
    make_due(tenant)
    assert overdue(shop) == {"posted": 0, "released": 1, "inconsistent": 1}
    with reading(tenant.id):
        incidents = Incident.objects.filter(tenant_id=tenant.id)
        assert {incident.kind for incident in incidents} == {"settlement_inconsistent"}
        assert Reservation.objects.get(decision_id=broken["decision_id"]).state == "active"
        assert Reservation.objects.get(decision_id=sound["decision_id"]).state == "released"


def test_shadow_lines_settle_in_shadow_totals_only(tenant: World) -> None:
    shop = Shop(tenant, modes={"terraform": {"default": "shadow"}})
    budget = shop.budget("100.00")
    grant = shop.grant("reserved", "100.00")
    decision = shop.ask("150.00")

    settled(shop, decision, "170.00")

    assert shop.budget_state(budget)["headroom_usd"] == Decimal(100)
    assert shop.grant_state(grant)["remaining_amount_usd"] == Decimal(100)
    with connection.cursor() as cursor, reading(tenant.id):
        cursor.execute(
            "SELECT sum(shadow_posted_usd) FROM billing_account_month WHERE tenant_id = %s",
            [tenant.id],
        )
        assert cursor.fetchone()[0] > 0
    assert find_differences(tenant.id) == []


def test_twenty_settlers_of_one_reservation_have_one_winner(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    decision = shop.ask("300.00")

    answers = run_in_threads(20, lambda n: reconcile(shop, decision, f"{250 + n}.00").status_code)

    assert sorted(answers) == [200] + [409] * 19
    state = shop.budget_state(budget)
    assert state["pending_usd"] == 0
    assert Decimal(250) <= state["posted_usd"] <= Decimal(269)
    assert find_differences(tenant.id) == []


def test_settle_and_overdue_at_once_settle_each_family_once(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("10000.00")
    decisions = [shop.ask("100.00", key=f"k{n}") for n in range(12)]
    make_due(tenant)

    def work(number: int) -> Any:
        if number < 4:
            return overdue(shop)["released"]
        return reconcile(shop, decisions[number % 12], "40.00").status_code

    results = run_in_threads(16, work)

    released, by_hand = sum(results[:4]), results[4:].count(200)
    assert released + by_hand == 12
    assert shop.budget_state(budget)["posted_usd"] == Decimal(40) * by_hand
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_an_actor_of_the_system_may_run_it(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    shop.ask("50.00")
    with reading(tenant.id):
        due_at = Reservation.objects.get(tenant_id=tenant.id).due_at
    actor = Actor(tenant_id=tenant.id, principal_id="system:overdue", address=None, at=due_at)

    assert reconcile_overdue(actor=actor) == {"posted": 0, "released": 1, "inconsistent": 0}
