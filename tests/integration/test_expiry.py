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
from governance.models import Approval
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.preflight import build_preflight
from valdrix.kernel.db import reading

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


def check_books(world: World) -> None:
    assert find_differences(world.id) == []
    assert run_checks(world.id).violated == ()
    check_chain(world.id)


def test_an_expired_approval_gives_its_hold_back(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    grant = shop.grant("reserved", "500.00")
    answer = shop.ask("1200.00")
    assert answer["decision"] == "REQUIRE_APPROVAL"
    assert expire(shop.world, after=timedelta(hours=23)) == {"expired": 0, "kept": 0}

    assert expire(shop.world) == {"expired": 1, "kept": 0}

    assert shop.budget_state(budget)["pending_usd"] == 0
    assert shop.grant_state(grant)["remaining_amount_usd"] == Decimal(500)
    entries = shop.api.get(
        f"ledger?decision_id={answer['decision_id']}&order=asc", key=shop.world.admin.key
    ).json()["results"]
    assert [entry["event"] for entry in entries][-2:] == ["approval_expired", "released"]
    assert expire(shop.world) == {"expired": 0, "kept": 0}
    check_books(shop.world)


def test_only_the_increase_that_waits_goes_back(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    shop.ask("90.00", key="a", run_id="run-1")
    more = shop.ask("150.00", key="b", run_id="run-1")
    assert (more["decision"], more["shared_reserved_usd"]) == ("REQUIRE_APPROVAL", "150.0000")

    assert expire(shop.world) == {"expired": 1, "kept": 0}

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

    assert expire(shop.world) == {"expired": 1, "kept": 0}

    assert shop.budget_state(budget)["pending_usd"] == 0
    with reading(shop.world.id):
        assert Charge.objects.get(tenant_id=shop.world.id).state == "released"
    check_books(shop.world)


def test_a_hold_that_others_lean_on_stays_until_its_family_is_due(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    parent = shop.ask("150.00", key="p")["decision_id"]
    child = shop.ask("50.00", key="c", resource_reference="x", parent_decision_id=parent)
    assert child["decision"] == "REQUIRE_APPROVAL", "it leans on what nobody has approved"

    assert expire(shop.world)["expired"] == 2

    assert shop.budget_state(budget)["pending_usd"] in {Decimal(0), Decimal(150)}
    check_books(shop.world)


def test_a_decision_that_held_nothing_just_ends(shop: Shop) -> None:
    shop.publish(modes={"terraform": {"default": "soft"}})
    shop.budget("10.00")
    assert shop.ask("50.00")["decision"] == "REQUIRE_APPROVAL"

    assert expire(shop.world) == {"expired": 1, "kept": 0}

    check_books(shop.world)


def test_many_workers_end_each_approval_once(shop: Shop, run_in_threads: Any) -> None:
    budget = shop.budget("10000.00")
    for number in range(8):
        shop.ask("200.00", key=f"k{number}", resource_reference=f"r{number}")

    results = run_in_threads(6, lambda _: expire(shop.world)["expired"])

    assert sum(results) == 8
    assert shop.budget_state(budget)["pending_usd"] == 0
    check_books(shop.world)
