"""What an admission let through and nobody confirmed is held for minutes, not for the SLA."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.http import HttpRequest
from rest_framework.request import Request

from billing.models import Charge, Reservation
from enforcement.api.gates import ask_gate
from enforcement.gate.inputs import K8S_ADMISSION, GateRequest, build_cost
from enforcement.integrity.queries import run_checks
from enforcement.reconciliation.operations import reconcile_overdue
from governance.audit.operations import Actor
from tests.client import Api
from tests.factories.headroom import PROJECT, Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from valdrix.kernel.db import reading
from valdrix.schedule import find_job

TTL_SECONDS = 600


@pytest.fixture
def shop(tenant: World) -> Shop:
    return Shop(tenant, reservations={"admission_ttl_seconds": TTL_SECONDS, "sla_hours": 10})


def admit(shop: Shop, amount: str, **members: Any) -> dict[str, Any]:
    gate_request = GateRequest(
        source=K8S_ADMISSION,
        project_id=PROJECT,
        environment="dev",
        action="k8s.create",
        resource_reference=members.pop("resource_reference", "deployments/web"),
        cost=build_cost(monthly=Decimal(amount), hourly=None),
        actor=shop.world.member.principal.principal_id,
        **members,
    )
    request = Request(HttpRequest())
    request.user = shop.world.member.principal
    return ask_gate(request, gate_request)


def run_job(shop: Shop, *, after: timedelta) -> dict[str, int]:
    """Run the overdue job as if that much time had passed since the newest reservation."""
    with reading(shop.world.id):
        newest = Reservation.objects.filter(tenant_id=shop.world.id).latest("reserved_at")
    actor = Actor(
        tenant_id=shop.world.id,
        principal_id="system:reconcile-overdue",
        address=None,
        at=newest.reserved_at + after,
    )
    return reconcile_overdue(actor=actor)


def held_for(shop: Shop, answer: dict[str, Any]) -> timedelta:
    with reading(shop.world.id):
        row = Reservation.objects.get(pk=answer["decision_id"])
    return row.due_at - row.reserved_at


def confirm(shop: Shop, answer: dict[str, Any]) -> None:
    response = Api().post(
        f"reservations/{answer['decision_id']}/confirm", {}, key=shop.world.member.key
    )
    assert response.status_code == 200, response.content


def check_books(shop: Shop) -> None:
    assert find_differences(shop.world.id) == []
    assert run_checks(shop.world.id).violated == ()
    check_chain(shop.world.id)


def test_each_source_holds_for_its_own_time(shop: Shop) -> None:
    shop.budget("1000.00")

    assert held_for(shop, admit(shop, "10.00")) == timedelta(seconds=TTL_SECONDS)
    assert held_for(shop, shop.ask("10.00", key="t")) == timedelta(hours=10)


def test_an_unconfirmed_admission_is_released_after_its_time(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    admit(shop, "10.00")
    nothing = {"posted": 0, "released": 0, "inconsistent": 0}
    assert run_job(shop, after=timedelta(seconds=TTL_SECONDS - 1)) == nothing

    assert run_job(shop, after=timedelta(seconds=TTL_SECONDS)) == {**nothing, "released": 1}

    assert shop.budget_state(budget)["pending_usd"] == 0
    check_books(shop)


def test_a_confirmed_admission_is_held_as_long_as_everything_else(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    answer = admit(shop, "10.00")

    confirm(shop, answer)

    assert held_for(shop, answer) == timedelta(hours=10)
    assert run_job(shop, after=timedelta(hours=9))["posted"] == 0
    assert shop.budget_state(budget)["pending_usd"] == Decimal(10)
    assert run_job(shop, after=timedelta(hours=10))["posted"] == 1
    check_books(shop)


def test_the_pipelines_part_stays_when_its_admission_lapses(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    pipeline = shop.ask("100.00", key="pipeline")
    admission = admit(shop, "130.00", parent_decision_id=pipeline["decision_id"])
    assert (admission["reserved_allocation_usd"], admission["shared_reserved_usd"]) == (
        "30.0000",
        "130.0000",
    )

    counts = run_job(shop, after=timedelta(seconds=TTL_SECONDS))

    assert counts == {"posted": 0, "released": 1, "inconsistent": 0}
    assert shop.budget_state(budget)["pending_usd"] == Decimal(100)
    with reading(shop.world.id):
        parent = Charge.objects.get(reservations__decision_id=pipeline["decision_id"])
        states = dict(
            Reservation.objects.filter(tenant_id=shop.world.id).values_list("own_usd", "state")
        )
    assert (parent.state, parent.taken_usd, parent.family_held_usd) == ("active", 0, 100)
    assert states == {Decimal("100.0000"): "active", Decimal("30.0000"): "released"}
    check_books(shop)
    assert run_job(shop, after=timedelta(seconds=TTL_SECONDS))["released"] == 0


def test_a_confirmed_familys_admission_does_not_lapse(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    pipeline = shop.ask("100.00", key="pipeline")
    admission = admit(shop, "130.00", parent_decision_id=pipeline["decision_id"])
    confirm(shop, admission)

    assert run_job(shop, after=timedelta(seconds=TTL_SECONDS))["released"] == 0

    assert shop.budget_state(budget)["pending_usd"] == Decimal(130)
    check_books(shop)


def test_an_admission_that_others_lean_on_waits_for_them(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    admission = admit(shop, "100.00")
    shop.ask("100.00", key="leans", parent_decision_id=admission["decision_id"])

    assert run_job(shop, after=timedelta(seconds=TTL_SECONDS))["released"] == 0

    assert shop.budget_state(budget)["pending_usd"] == Decimal(100)
    assert run_job(shop, after=timedelta(hours=10))["released"] == 1
    check_books(shop)


def test_one_that_waits_for_its_approval_ends_with_that(tenant: World) -> None:
    shop = Shop(
        tenant,
        reservations={"admission_ttl_seconds": TTL_SECONDS},
        thresholds={"nonprod": {"require_approval_from_usd": "100.00"}},
    )
    budget = shop.budget("1000.00")
    assert admit(shop, "150.00")["decision"] == "REQUIRE_APPROVAL"

    assert run_job(shop, after=timedelta(seconds=TTL_SECONDS))["released"] == 0

    assert shop.budget_state(budget)["pending_usd"] == Decimal(150)
    check_books(shop)


def test_the_job_comes_well_within_an_admissions_time() -> None:
    job = find_job("reconcile-overdue")
    assert job is not None
    assert job.interval_seconds <= 60
