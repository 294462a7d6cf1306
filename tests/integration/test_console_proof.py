"""The console's pages of simulation and rollout: who may, what is shown, what happens by POST."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from enforcement.admin.flow_chart import HEIGHT, build_flow_chart
from enforcement.models import Promotion, Simulation
from enforcement.replay import operations
from enforcement.rollout import domain
from enforcement.rollout.domain import Thresholds
from governance.models import User
from tests.client import Api
from tests.factories.headroom import Shop, build_policy
from tests.factories.tenants import Person, World
from tests.integration.exports.history import make_history
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

STRICT = build_policy(thresholds={"prod": {"deny_from_usd": "390.00"}, "nonprod": {}})
DAYS = {"first": "2020-01-01", "last": "2099-01-01"}


def sign_in(person: Person) -> Client:
    client = Client()
    client.force_login(User.objects.get(pk=person.user_id))
    return client


def test_a_policy_is_tried_on_history_and_the_result_is_read(tenant: World) -> None:
    make_history(tenant)
    client = sign_in(tenant.admin)
    form = client.get(reverse("admin:simulations")).content.decode()
    assert "Simulate on history" in form
    assert "valdrix.enforcement.policy.v1" in form, "the live policy stands there to be changed"

    answer = client.post(
        reverse("admin:simulations"), {"document": json.dumps(STRICT), **DAYS}, follow=True
    )

    page = answer.content.decode()
    assert "Money moved between outcomes" in page
    assert "<svg" in page
    assert "-big.1" in page
    assert "headroom stored with it" in page
    assert "style=" not in page.split('id="content"')[-1]
    with reading(tenant.id):
        kept = Simulation.objects.get(tenant_id=tenant.id)
    assert kept.requested_by == f"user:{tenant.admin.user_id}"
    listed = client.get(reverse("admin:simulations")).content.decode()
    assert reverse("admin:simulation", args=[kept.pk]) in listed


def test_a_long_simulation_shows_its_progress(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_history(tenant)
    monkeypatch.setattr(operations, "AT_ONCE", 0)
    client = sign_in(tenant.admin)
    answer = client.post(
        reverse("admin:simulations"), {"document": json.dumps(STRICT), **DAYS}, follow=True
    )
    assert "0 of 10 decisions so far" in answer.content.decode()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"document": "{"}, "This is not JSON"),
        ({"document": '{"modes": {"terraform": {"default": "x"}}}'}, "/modes/terraform/default"),
        ({"first": "2021-01-01", "last": "2020-01-01"}, "must not be before"),
        ({"first": "soon"}, "valid date"),
    ],
)
def test_a_wrong_form_comes_back_and_orders_nothing(
    tenant: World, changes: dict[str, str], word: str
) -> None:
    body = {"document": json.dumps(STRICT), **DAYS, **changes}
    page = sign_in(tenant.admin).post(reverse("admin:simulations"), body).content.decode()
    assert word in page
    with reading(tenant.id):
        assert not Simulation.objects.filter(tenant_id=tenant.id).exists()


def test_who_may_not_and_what_is_not_there(tenant: World, other_tenant: World) -> None:
    for name in ("simulations", "rollout"):
        assert sign_in(tenant.member).get(reverse(f"admin:{name}")).status_code == 403
        assert sign_in(tenant.admin).put(reverse(f"admin:{name}")).status_code == 405
    gone = reverse("admin:simulation", args=[new_id()])
    assert sign_in(tenant.admin).get(gone).status_code == 404
    assert sign_in(tenant.admin).post(gone).status_code == 405
    make_history(other_tenant)
    sign_in(other_tenant.admin).post(
        reverse("admin:simulations"), {"document": json.dumps(STRICT), **DAYS}
    )
    with reading(other_tenant.id):
        foreign = Simulation.objects.get(tenant_id=other_tenant.id).pk
    assert sign_in(tenant.admin).get(reverse("admin:simulation", args=[foreign])).status_code == 404


def test_a_forged_form_orders_nothing(tenant: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(pk=tenant.admin.user_id))
    for name in ("simulations", "rollout"):
        assert client.post(reverse(f"admin:{name}"), {}).status_code == 403


# The chart


def result_of(**flows: tuple[int, str]) -> dict[str, Any]:
    names = {
        "a": "ALLOW",
        "c": "ALLOW_WITH_CREDITS",
        "r": "REQUIRE_APPROVAL",
        "d": "DENY",
    }
    was: dict[str, Any] = {
        name: {"decisions": 0, "monthly_increase_usd": Decimal(0)} for name in names.values()
    }
    moved = []
    for ends, (decisions, money) in flows.items():
        before, after = names[ends[0]], names[ends[1]]
        was[before]["decisions"] += decisions
        was[before]["monthly_increase_usd"] += Decimal(money)
        if before != after:
            moved.append(
                {
                    "from": before,
                    "to": after,
                    "decisions": decisions,
                    "monthly_increase_usd": money,
                }
            )
    return {"was": was, "moved": moved}


def test_the_charts_bars_add_up_and_lie_inside() -> None:
    chart = build_flow_chart(result_of(aa=(3, "60.0000"), ad=(1, "40.0000"), dr=(1, "100.0000")))
    assert chart.unit == "monthly increase in USD"
    assert [band.is_moved for band in chart.bands] == [False, True, True]
    assert "1 decisions, 40.00 USD a month" in " ".join(band.title for band in chart.bands)
    for side in (0, 984):
        nodes = [node for node in chart.nodes if node.x == side]
        heights = [Decimal(node.height) for node in nodes]
        assert abs(sum(heights) - (HEIGHT - 3 * 14)) < 1
        assert all(Decimal(node.y) + Decimal(node.height) <= HEIGHT + 1 for node in nodes)
    for band in chart.bands:
        assert re.fullmatch(r"[MCLZ0-9., -]+", band.path)


def test_a_chart_without_money_counts_decisions_and_an_empty_one_is_empty() -> None:
    chart = build_flow_chart(result_of(aa=(2, "0.0000"), ad=(1, "0.0000")))
    assert chart.unit == "decisions"
    assert len(chart.bands) == 2
    assert build_flow_chart(result_of()).bands == ()


# Rollout


@pytest.fixture
def shop(tenant: World, monkeypatch: pytest.MonkeyPatch) -> Shop:
    few = Thresholds(
        decisions=2, false_positive_rate=Decimal("0.05"), error_rate=Decimal("0.01"), p95_ms=60_000
    )
    monkeypatch.setitem(domain.THRESHOLDS, "soft", few)
    made = Shop(tenant, modes={"terraform": {"default": "shadow"}})
    made.budget("100.00")
    for number in range(2):
        made.ask("1.00", resource_reference=f"m{number}")
    return made


def do(person: Person, what: str, **changes: str) -> str:
    body = {"source": "terraform", "environment": "nonprod", "do": what, **changes}
    page = sign_in(person).post(reverse("admin:rollout"), body, follow=True)
    return page.content.decode()


def test_a_step_is_proposed_and_signed_in_the_console(shop: Shop) -> None:
    world = shop.world
    page = sign_in(world.admin).get(reverse("admin:rollout")).content.decode()
    assert "Propose soft" in page
    assert "Volume is 0 decisions, 2 are needed" in page, "prod has none yet"
    assert "There is no higher mode." in page

    assert "Another admin or owner signs it" in do(world.admin, "propose")
    assert "Another person than the proposer signs" in do(world.admin, "sign")
    assert (
        "Sign off and publish"
        in sign_in(world.owner).get(reverse("admin:rollout")).content.decode()
    )
    assert "policy version 2" in do(world.owner, "sign")
    assert Api().get("policies", key=world.key).json()["policy_version"] == 2


def test_a_refusal_and_a_withdrawal_are_told(shop: Shop) -> None:
    assert "volume is 0 decisions" in do(shop.world.admin, "propose", environment="prod")
    assert "There is no proposal" in do(shop.world.admin, "withdraw")
    do(shop.world.admin, "propose")
    assert "withdrawn" in do(shop.world.owner, "withdraw")
    assert "nothing of this name" in do(shop.world.admin, "sign", source="x")
    assert "nothing of this name" in do(shop.world.admin, "sign", environment="x")
    assert "nothing of this name" in do(shop.world.admin, "x")
    with reading(shop.world.id):
        states = Promotion.objects.filter(tenant_id=shop.world.id).values_list("state", flat=True)
        assert list(states) == ["withdrawn"]
