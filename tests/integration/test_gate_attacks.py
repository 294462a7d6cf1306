"""Ways around the gate that were tried on it, each with what it must answer."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from billing.models import Account
from enforcement.integrity.queries import run_checks
from governance.models import Approval
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.integration.test_reconciliation import make_due, overdue, reconcile
from tests.preflight import build_preflight
from valdrix.kernel.db import reading

PREFLIGHT = "gate/terraform/preflight"


@pytest.fixture
def waiting(tenant: World) -> tuple[Shop, dict[str, Any], str]:
    """Give a decision that waits for approval and holds emergency credits meanwhile."""
    shop = Shop(tenant, credits={"emergency": {"nonprod": "approval"}})
    shop.budget("10.00")
    grant = shop.grant("emergency", "500.00")
    answer = shop.ask("100.00", key="a", run_id="run-1")
    assert answer["decision"] == "REQUIRE_APPROVAL"
    return shop, answer, grant


def test_what_waits_cannot_be_confirmed_or_settled(
    waiting: tuple[Shop, dict[str, Any], str],
) -> None:
    shop, answer, grant = waiting
    key = shop.world.member.key

    confirmed = Api().post(f"reservations/{answer['decision_id']}/confirm", {}, key=key)
    settled = reconcile(shop, answer, "100.00")

    for response in (confirmed, settled):
        assert (response.status_code, response.json()["code"]) == (409, "approval_pending")
    make_due(shop.world)
    assert overdue(shop) == {"posted": 0, "released": 0, "inconsistent": 0}, "its reviewers' time"
    state = shop.grant_state(grant)
    assert (state["consumed_amount_usd"], state["reserved_amount_usd"]) == (0, 90)


def test_a_last_stage_confirms_nothing_that_waits(tenant: World) -> None:
    shop = Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "50.00"}})
    shop.budget("1000.00")
    Api().post(PREFLIGHT, build_preflight(), key=tenant.key)

    answer = Api().post(PREFLIGHT, build_preflight(stage="post_apply"), key=tenant.key)

    assert answer.json()["decision"] == "REQUIRE_APPROVAL"
    make_due(tenant)
    assert overdue(shop)["posted"] == 0


def test_a_used_key_with_another_stage_confirms_nothing(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    first = build_preflight(idempotency_key="k")
    Api().post(PREFLIGHT, first, key=tenant.key)

    again = build_preflight(idempotency_key="k", run_id="run-2", stage="post_apply")
    assert Api().post(PREFLIGHT, again, key=tenant.key).json()["replayed"]

    make_due(tenant)
    assert overdue(shop) == {"posted": 0, "released": 1, "inconsistent": 0}


def test_the_same_plan_in_another_run_waits_too(tenant: World) -> None:
    shop = Shop(tenant, credits={"emergency": {"nonprod": "approval"}})
    shop.budget("10.00")
    shop.grant("emergency", "500.00")

    answers = [
        Api().post(PREFLIGHT, build_preflight(run_id=run), key=tenant.key).json()
        for run in ("run-1", "run-2")
    ]

    assert [answer["decision"] for answer in answers] == ["REQUIRE_APPROVAL"] * 2
    assert answers[1]["continuation"]["may_proceed"] is False


def test_an_identical_retry_is_a_retry_whatever_was_published_since(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    first = shop.ask("10.00", key="k", environment="uat")
    shop.publish(environments={"nonprod": ["uat", "dev"]})

    again = shop.ask("10.00", key="k", environment="uat")

    assert again == {**first, "replayed": True}
    assert shop.send("11.00", key="k", environment="uat").status_code == 409


def test_run_ids_of_two_projects_do_not_collide(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    shop.budget("1000.00", project_id="other")

    for project in ("shop", "other"):
        response = Api().post(PREFLIGHT, build_preflight(project_id=project), key=tenant.key)
        assert response.status_code == 200
        assert response.json()["idempotency_key"] == "terraform:run-1:post_plan"


def test_after_confirmation_a_run_shares_no_further_change(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    applied = shop.ask("100.00", key="a", run_id="run-1")["decision_id"]
    Api().post(f"reservations/{applied}/confirm", {}, key=tenant.key)

    for number in range(3):
        assert not shop.ask("100.00", key=f"b{number}", run_id="run-1")["replayed"]

    # One more charge, which the other two share: what was applied is over.
    assert shop.budget_state(budget)["pending_usd"] == Decimal(200)
    assert find_differences(tenant.id) == []


def test_a_run_finds_its_own_charge_before_another_run_s(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("400.00")
    Api().post(PREFLIGHT, build_preflight(run_id="x", stage="pre_plan", plan=None), key=tenant.key)
    Api().post(
        PREFLIGHT,
        build_preflight(run_id="y", cost_estimate=None, estimated_monthly_delta_usd="50.00"),
        key=tenant.key,
    )

    answer = Api().post(PREFLIGHT, build_preflight(run_id="x"), key=tenant.key).json()

    assert (answer["decision"], answer["reservation_shared"]) == ("ALLOW", True)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(350)
    assert find_differences(tenant.id) == []


def test_a_joined_approval_is_for_the_largest_amount_by_its_routing(tenant: World) -> None:
    shop = Shop(
        tenant,
        thresholds={"nonprod": {"require_approval_from_usd": "5.00"}},
        approval_routing_rules=[
            {
                "id": "large",
                "monthly_delta_from_usd": "1000.00",
                "reviewer_roles": ["owner"],
                "required": 2,
            }
        ],
    )
    shop.budget("100000.00")

    small, large = (
        Api()
        .post(
            PREFLIGHT,
            build_preflight(run_id=run, cost_estimate=None, estimated_monthly_delta_usd=amount),
            key=tenant.key,
        )
        .json()
        for run, amount in (("run-1", "10.00"), ("run-2", "9999.00"))
    )

    assert small["approval_request_id"] == large["approval_request_id"]
    with reading(tenant.id):
        row = Approval.objects.get(id=large["approval_request_id"])
    assert (row.monthly_delta_usd, row.required, row.routing_rule_id) == (9999, 2, "large")
    assert row.reviewer_roles == ["owner"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            PREFLIGHT,
            b'{"plan":{"format_version":"1.2","resource_changes":[' + b"{}," * 5_000_000 + b"{}]}}",
        ),
        ("gate/terraform", b'{"metadata":{"a":[' + b"{}," * 3_300_000 + b"{}]}}"),
        ("gate/terraform", b'{"metadata":{"a":[' + b"1," * 4_900_000 + b"1]}}"),
    ],
    ids=["plan of nothings", "objects", "numbers"],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(
    tenant: World, path: str, body: bytes
) -> None:
    response = Api().post(path, body, key=tenant.key)

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        ("application/json", {"Content-Encoding": "gzip"}),
        ("application/json; charset=utf-16", {}),
    ],
)
def test_a_body_in_another_coding_is_a_415(
    tenant: World, content_type: str, headers: dict[str, str]
) -> None:
    body = json.dumps({"project_id": "shop"}).encode()
    response = Api().post(
        "gate/terraform", body, key=tenant.key, content_type=content_type, headers=headers
    )

    assert response.status_code == 415


def test_utf_8_may_be_named(tenant: World) -> None:
    response = Api().post(
        "gate/terraform", {}, key=tenant.key, content_type='application/json; charset="UTF-8"'
    )

    assert response.status_code == 422


def test_the_keys_of_a_member_who_left_do_not_come_back(tenant: World) -> None:
    api, owner = Api(), tenant.owner.key
    assert api.delete(f"members/{tenant.member.user_id}", key=owner).status_code in {200, 204}

    again = api.post("members", {"username": tenant.member.username, "role": "member"}, key=owner)

    assert again.status_code == 201
    assert api.get("budgets", key=tenant.member.key).status_code == 401


def test_an_audit_cursor_from_nowhere_is_a_422(tenant: World) -> None:
    cursor = "MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OSAwMTlhYTAwMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDA="

    response = Api().get(f"audit?cursor={cursor}", key=tenant.owner.key)

    assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")


def test_growing_a_child_while_its_family_settles_never_deadlocks(
    tenant: World, run_in_threads: Any
) -> None:
    shop = Shop(tenant)
    shop.budget("100000.00")
    for round_number in range(4):
        parent = shop.ask("100.00", key=f"p{round_number}")["decision_id"]
        run = f"run-{round_number}"
        shop.ask(
            "50.00",
            key=f"c{round_number}",
            run_id=run,
            resource_reference="child",
            parent_decision_id=parent,
        )

        def act(number: int, parent: str = parent, run: str = run, turn: int = round_number) -> Any:
            if number == 0:
                return reconcile(shop, parent, "100.00").status_code
            return shop.ask(
                f"{60 + number}.00",
                key=f"g{turn}-{number}",
                run_id=run,
                resource_reference="child",
                parent_decision_id=parent,
            )["decision"]

        results = run_in_threads(5, act)

        assert results[0] == 200
        assert results[1:] == ["ALLOW"] * 4
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def test_a_change_that_has_a_charge_takes_nothing_of_another_family(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    shop.ask("100.00", key="a", run_id="run-1")
    for number in range(4):
        parent = shop.ask("100.00", key=f"p{number}", resource_reference=f"o{number}")
        grown = shop.ask(
            f"{200 + 100 * number}.00",
            key=f"g{number}",
            run_id="run-1",
            parent_decision_id=parent["decision_id"],
        )
        assert grown["reserved_allocation_usd"] == "100.0000"
        assert "parent_decision_not_applicable" in grown["reason_codes"]

    # Each step holds its own increase: eight times 100 beside the first one.
    assert shop.budget_state(budget)["pending_usd"] == Decimal(900)
    assert find_differences(tenant.id) == []
    assert run_checks(tenant.id).violated == ()


def test_a_kept_total_that_is_too_low_is_reported_and_others_go_on(
    tenant: World, owner_cursor: Any
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    broken = shop.ask("300.00", key="a")
    owner_cursor.execute("UPDATE billing_account SET pending_usd = 10 WHERE id = %s", [budget])

    response = reconcile(shop, broken, "300.00")

    assert (response.status_code, response.json()["code"]) == (409, "settlement_inconsistent")
    make_due(tenant)
    assert overdue(shop) == {"posted": 0, "released": 0, "inconsistent": 1}
    with reading(tenant.id):
        assert Account.objects.get(id=budget).pending_usd == Decimal(10)
