"""An approval that nobody gave in time ends, and only its own hold goes back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.models import Charge, Reservation
from enforcement.integrity.queries import run_checks
from enforcement.reconciliation.expiry import expire_approvals
from governance.audit.operations import Actor
from governance.models import Approval, Incident
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.integration.test_reconciliation import make_due, overdue
from tests.preflight import build_preflight
from tests.reviews import approve
from valdrix.kernel.db import reading, transaction

PREFLIGHT = "gate/terraform/preflight"


@pytest.fixture
def shop(tenant: World) -> Shop:
    return Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "100.00"}})


def expire(world: World, *, after: timedelta = timedelta(days=2)) -> dict[str, int]:
    """Run the job as if that much time had passed since the newest request."""
    with reading(world.id):
        newest = Approval.objects.filter(tenant_id=world.id).latest("requested_at")
    actor = Actor(
        tenant_id=world.id,
        principal_id="system:expire-approvals",
        address=None,
        at=newest.requested_at + after,
    )
    return expire_approvals(actor=actor)


def approve_for_long(shop: Shop, answer: dict[str, Any]) -> None:
    """Approve what a decision waits for, so that it outlives every other approval here."""
    approve(shop.world.owner, answer["approval_request_id"])
    with transaction(shop.world.id):
        approval = Approval.objects.get(pk=answer["approval_request_id"])
        Approval.objects.filter(pk=approval.pk).update(
            expires_at=approval.requested_at + timedelta(days=30)
        )


def plan(shop: Shop, amount: str, run: str, **members: Any) -> dict[str, Any]:
    """Ask by preflight for one plan at an amount, in one run."""
    body = build_preflight(
        run_id=run, cost_estimate=None, estimated_monthly_delta_usd=amount, **members
    )
    answer: dict[str, Any] = Api().post(PREFLIGHT, body, key=shop.world.key).json()
    return answer


def events(shop: Shop, answer: dict[str, Any]) -> list[str]:
    entries = shop.api.get(
        f"ledger?decision_id={answer['decision_id']}&order=asc", key=shop.world.admin.key
    ).json()["results"]
    return [entry["event"] for entry in entries]


def check_books(world: World) -> None:
    assert find_differences(world.id) == []
    assert run_checks(world.id).violated == ()
    check_chain(world.id)


def test_an_expired_approval_gives_its_hold_back(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    grant = shop.grant("reserved", "500.00")
    answer = shop.ask("1200.00")
    assert answer["decision"] == "REQUIRE_APPROVAL"
    assert expire(shop.world, after=timedelta(hours=23)) == {"expired": 0, "released": 0}

    assert expire(shop.world) == {"expired": 1, "released": 1}

    assert shop.budget_state(budget)["pending_usd"] == 0
    assert shop.grant_state(grant)["remaining_amount_usd"] == Decimal(500)
    entries = shop.api.get(
        f"ledger?decision_id={answer['decision_id']}&order=asc", key=shop.world.admin.key
    ).json()["results"]
    assert [entry["event"] for entry in entries][-2:] == ["approval_expired", "released"]
    assert expire(shop.world) == {"expired": 0, "released": 0}
    check_books(shop.world)


def test_only_the_increase_that_waits_goes_back(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    shop.ask("90.00", key="a", run_id="run-1")
    more = shop.ask("150.00", key="b", run_id="run-1")
    assert (more["decision"], more["shared_reserved_usd"]) == ("REQUIRE_APPROVAL", "150.0000")

    assert expire(shop.world) == {"expired": 1, "released": 1}

    assert shop.budget_state(budget)["pending_usd"] == Decimal(90)
    with reading(shop.world.id):
        charge = Charge.objects.get(tenant_id=shop.world.id)
        states = dict(Reservation.objects.filter(charge=charge).values_list("own_usd", "state"))
    assert (charge.state, charge.held_usd, charge.family_held_usd) == ("active", 90, 90)
    assert states == {Decimal("90.0000"): "active", Decimal("60.0000"): "released"}
    check_books(shop.world)


def test_decisions_that_joined_an_approval_end_with_it(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    for run in ("run-1", "run-2"):
        Api().post(PREFLIGHT, build_preflight(run_id=run), key=shop.world.key)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)

    assert expire(shop.world) == {"expired": 1, "released": 2}

    assert shop.budget_state(budget)["pending_usd"] == 0
    with reading(shop.world.id):
        assert Charge.objects.get(tenant_id=shop.world.id).state == "released"
    check_books(shop.world)


def test_holds_that_lean_on_one_another_go_together(shop: Shop) -> None:
    budget = shop.budget("100000.00")
    parent = shop.ask("50000.00", key="p")["decision_id"]
    child = shop.ask("10.00", key="c", resource_reference="x", parent_decision_id=parent)
    assert child["decision"] == "REQUIRE_APPROVAL", "it leans on what nobody has approved"

    assert expire(shop.world) == {"expired": 2, "released": 2}

    assert shop.budget_state(budget)["pending_usd"] == 0
    confirmed = Api().post(f"reservations/{parent}/confirm", {}, key=shop.world.key)
    assert confirmed.status_code == 409
    late = shop.ask("99.00", key="l", resource_reference="y", parent_decision_id=parent)
    assert "parent_decision_not_applicable" in late["reason_codes"]
    check_books(shop.world)


def test_an_expired_hold_that_is_leaned_on_lets_nothing_through_meanwhile(shop: Shop) -> None:
    shop.budget("100000.00")
    parent = shop.ask("50000.00", key="p")["decision_id"]
    shop.ask("10.00", key="c", resource_reference="x", parent_decision_id=parent)
    with transaction(shop.world.id):
        first = Approval.objects.get(decision_id=parent)
        Approval.objects.filter(pk=first.pk).update(expires_at=first.requested_at)

    assert expire(shop.world, after=timedelta(hours=1)) == {"expired": 1, "released": 0}

    for path in ("confirm", "reconcile"):
        body = {} if path == "confirm" else {"actual_monthly_delta_usd": "50000.00"}
        response = Api().post(f"reservations/{parent}/{path}", body, key=shop.world.admin.key)
        assert (response.status_code, response.json()["code"]) == (409, "approval_pending")
    late = shop.ask("99.00", key="l", resource_reference="y", parent_decision_id=parent)
    assert late["decision"] == "REQUIRE_APPROVAL"
    assert expire(shop.world)["released"] == 3
    check_books(shop.world)


def test_a_joiner_in_another_family_is_protected_and_ends_too(shop: Shop) -> None:
    budget = shop.budget("10000.00")
    opener = plan(shop, "150.00", "r1")
    assert plan(shop, "1.00", "r2", stage="pre_plan", plan=None)["decision"] == "ALLOW"
    joiner = plan(shop, "5000.00", "r2")
    assert joiner["approval_request_id"] == opener["approval_request_id"]

    response = Api().post(f"reservations/{joiner['decision_id']}/confirm", {}, key=shop.world.key)
    assert (response.status_code, response.json()["code"]) == (409, "approval_pending")
    make_due(shop.world)
    assert overdue(shop) == {"posted": 0, "released": 0, "inconsistent": 0}
    assert expire(shop.world) == {"expired": 1, "released": 2}
    assert shop.budget_state(budget)["pending_usd"] == Decimal(1)
    check_books(shop.world)


def test_growth_that_nobody_approved_is_never_posted(shop: Shop) -> None:
    budget = shop.budget("100000.00")
    applied = plan(shop, "60.00", "q")["decision_id"]
    confirmed = Api().post(f"reservations/{applied}/confirm", {}, key=shop.world.key)
    assert confirmed.status_code == 200
    grown = plan(shop, "5000.00", "q", stage="post_apply")
    assert grown["decision"] == "REQUIRE_APPROVAL"
    make_due(shop.world)

    assert overdue(shop)["posted"] == 1, "whoever may ask may not keep it from settling"

    assert shop.budget_state(budget)["posted_usd"] == Decimal(60)
    assert shop.budget_state(budget)["pending_usd"] == 0
    assert events(shop, grown)[-1] == "released"
    check_books(shop.world)
    assert expire(shop.world) == {"expired": 1, "released": 0}
    check_books(shop.world)


def test_growth_that_waits_does_not_keep_a_person_from_reconciling(shop: Shop) -> None:
    budget = shop.budget("100000.00")
    applied = plan(shop, "60.00", "q")["decision_id"]
    assert Api().post(f"reservations/{applied}/confirm", {}, key=shop.world.key).status_code == 200
    grown = plan(shop, "5000.00", "q", stage="post_apply")["decision_id"]
    body = {"actual_monthly_delta_usd": "70.00"}
    refused = Api().post(f"reservations/{grown}/reconcile", body, key=shop.world.admin.key)
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_pending")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(5000)

    settled = Api().post(f"reservations/{applied}/reconcile", body, key=shop.world.admin.key)

    assert settled.status_code == 200, settled.content
    result = settled.json()
    assert (result["reserved_usd"], result["overrun_usd"]) == ("60.0000", "10.0000")
    assert result["decision_ids"] == [applied]
    assert shop.budget_state(budget)["pending_usd"] == 0
    with reading(shop.world.id):
        assert Reservation.objects.get(pk=grown).state == "released"
        assert Approval.objects.get(decision_id=grown).status == "pending"
    check_books(shop.world)


def test_a_member_that_is_left_without_a_line_can_be_reconciled(shop: Shop) -> None:
    """It held nothing itself; what it cost is an overrun where the released one had its lines."""
    budget = shop.budget("1000.00")
    first = shop.ask("150.00", key="a", run_id="r")
    again = shop.ask("150.00", key="b", run_id="r")
    assert again["reservation_shared"]
    approve_for_long(shop, again)
    assert expire(shop.world) == {"expired": 1, "released": 1}
    assert shop.budget_state(budget)["pending_usd"] == 0
    check_books(shop.world)

    body = {"actual_monthly_delta_usd": "150.00"}
    response = Api().post(
        f"reservations/{again['decision_id']}/reconcile", body, key=shop.world.admin.key
    )

    assert response.status_code == 200, response.content
    assert response.json()["overrun_usd"] == "150.0000"
    state = shop.budget_state(budget)
    assert (state["overrun_usd"], state["posted_usd"], state["headroom_usd"]) == (150, 0, 850)
    assert first["decision_id"] not in response.json()["decision_ids"]
    check_books(shop.world)


def test_a_member_that_is_left_without_a_line_is_released_when_overdue(shop: Shop) -> None:
    shop.budget("1000.00")
    shop.ask("150.00", key="a", run_id="r")
    again = shop.ask("150.00", key="b", run_id="r")
    approve_for_long(shop, again)
    expire(shop.world)
    make_due(shop.world)

    assert overdue(shop) == {"posted": 0, "released": 1, "inconsistent": 0}

    check_books(shop.world)


def test_one_broken_hold_stops_no_other(shop: Shop, owner_cursor: Any) -> None:
    broken, sound = shop.budget("1000.00"), shop.budget("1000.00", project_id="other")
    shop.ask("300.00", key="a")
    shop.ask("300.00", key="b", project_id="other")
    owner_cursor.execute("UPDATE billing_account SET pending_usd = 10 WHERE id = %s", [broken])

    assert expire(shop.world) == {"expired": 2, "released": 1}

    assert shop.budget_state(sound)["pending_usd"] == 0
    with reading(shop.world.id):
        assert Incident.objects.filter(tenant_id=shop.world.id).count() == 1


def test_a_decision_that_held_nothing_just_ends(shop: Shop) -> None:
    shop.publish(modes={"terraform": {"default": "soft"}})
    shop.budget("10.00")
    assert shop.ask("50.00")["decision"] == "REQUIRE_APPROVAL"

    assert expire(shop.world) == {"expired": 1, "released": 0}

    check_books(shop.world)


def test_many_workers_end_each_approval_once(shop: Shop, run_in_threads: Any) -> None:
    budget = shop.budget("10000.00")
    for number in range(8):
        shop.ask("200.00", key=f"k{number}", resource_reference=f"r{number}")

    results = run_in_threads(6, lambda _: expire(shop.world))

    assert sum(result["expired"] for result in results) == 8
    assert sum(result["released"] for result in results) + expire(shop.world)["released"] == 8
    assert shop.budget_state(budget)["pending_usd"] == 0
    check_books(shop.world)


def test_what_is_confirmed_is_posted_though_its_family_s_first_charge_was_released(
    shop: Shop,
) -> None:
    budget = shop.budget("1000.00")
    parent = shop.ask("150.00", key="p")["decision_id"]
    change = {"run_id": "run-2", "resource_reference": "x"}
    shop.ask("50.00", key="c", parent_decision_id=parent, **change)
    shop.ask("0.00", key="z", **change)
    assert expire(shop.world)["expired"] == 2

    grown = shop.ask("70.00", key="g", **change)
    assert grown["decision"] == "ALLOW"
    confirmed = Api().post(f"reservations/{grown['decision_id']}/confirm", {}, key=shop.world.key)
    assert confirmed.status_code == 200
    make_due(shop.world)

    assert overdue(shop) == {"posted": 1, "released": 0, "inconsistent": 0}
    assert shop.budget_state(budget)["posted_usd"] == Decimal(70)
    assert find_differences(shop.world.id) == []
    check_books(shop.world)
