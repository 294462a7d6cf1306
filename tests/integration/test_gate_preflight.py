"""``POST gate/terraform/preflight``: real estimates and plans become decisions."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from enforcement.models import Decision
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import find_differences
from tests.factories.tenants import World
from tests.preflight import build_estimate, build_plan, build_preflight
from valdrix.kernel.db import reading

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"

ESTIMATES = {
    "breakdown_directory_diff_is_zero.json": ("unknown", None),
    "breakdown_format_json.json": ("known", "1361.3075"),
    "diff_negative.json": ("known", "-742.6400"),
    "errors.json": ("unknown", None),
    "example_diff_out.json": ("known", "1361.3075"),
    "example_out.json": ("known", "1361.3075"),
    "no_project.json": ("unknown", None),
    "terraform_v0.14_breakdown.json": ("partial", "40.5610"),
    "terraform_v0.14_nochange_breakdown.json": ("partial", "0.0000"),
}


def preflight(shop: Shop, **members: Any) -> Any:
    return Api().post(
        "gate/terraform/preflight", build_preflight(**members), key=shop.world.member.key
    )


def fixture(folder: str, name: str) -> bytes:
    path = FIXTURES / folder / name
    if not path.exists():
        pytest.skip(f"the shared fixture {folder}/{name} is not here")
    return path.read_bytes()


@pytest.mark.parametrize(("name", "expected"), ESTIMATES.items())
def test_a_real_estimate_is_gated(
    tenant: World, name: str, expected: tuple[str, str | None]
) -> None:
    document = json.loads(fixture("infracost", name))
    shop = Shop(tenant)
    shop.budget("2000.00")

    answer = preflight(
        shop, plan=None, cost_estimate={"format": "infracost", "document": document}
    ).json()

    assert (answer["cost_state"], answer["estimated_monthly_delta_usd"]) == expected
    assert answer["decision"] == "ALLOW"


@pytest.mark.parametrize(
    "name", ["110_sensitive_values", "120_basic", "basic", "has_changes", "no_changes"]
)
def test_a_real_plan_is_gated(tenant: World, name: str) -> None:
    shop = Shop(tenant)
    shop.budget("2000.00")

    answer = preflight(shop, plan=json.loads(fixture("terraform-plan", name + ".json"))).json()

    assert answer["decision"] == "ALLOW"
    assert len(answer["continuation"]["binding"]["change_digest"]) == 64


def test_a_plan_that_is_not_json_is_refused(tenant: World) -> None:
    shop = Shop(tenant)
    body = json.dumps(build_preflight(plan="@")).encode()
    body = body.replace(b'"@"', fixture("terraform-plan", "invalid.json"))

    response = Api().post("gate/terraform/preflight", body, key=tenant.member.key)

    assert (response.status_code, response.json()["code"]) == (400, "malformed_json")
    with reading(tenant.id):
        assert not Decision.objects.filter(tenant_id=shop.world.id).exists()


def test_no_secret_of_a_plan_is_stored(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("2000.00")
    plan = build_plan()
    change = plan["resource_changes"][0]["change"]
    change["after"]["password"] = "hunter2-very-secret"
    change["after_sensitive"] = {"password": True}

    answer = preflight(shop, plan=plan).json()

    with reading(tenant.id):
        row = Decision.objects.get(id=answer["decision_id"])
    assert "hunter2" not in row.context_json + row.outcome_json + row.response_json


def test_a_replayed_preflight_gives_the_same_bytes_but_for_the_mark(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("2000.00")

    first, again = preflight(shop).json(), preflight(shop).json()

    assert first["idempotency_key"] == "terraform:run-1:post_plan"
    assert again == {**first, "replayed": True}


def test_a_caller_cannot_write_into_the_surface_s_own_namespace(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("2000.00")
    shop.ask("10.00", key="terraform:run-1:post_plan")

    assert not preflight(shop).json()["replayed"]


def test_stages_with_and_without_a_plan_are_one_charge_also_for_later_runs(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("2000.00")

    preflight(shop, stage="pre_plan", plan=None)
    planned = preflight(shop, stage="post_plan").json()
    another_run = preflight(shop, run_id="run-2").json()
    another_change = preflight(shop, run_id="run-3", plan=build_plan("m5.24xlarge")).json()

    assert planned["reservation_shared"]
    assert another_run["reservation_shared"]
    assert not another_change["reservation_shared"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(600)
    assert find_differences(tenant.id) == []


def test_plans_without_a_change_share_nothing_across_runs(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("2000.00")
    empty = build_plan(resource_changes=[])

    for run in ("run-1", "run-2"):
        preflight(shop, run_id=run, plan=empty)

    assert shop.budget_state(budget)["pending_usd"] == Decimal(600)


def test_one_pending_approval_serves_the_same_computed_change(tenant: World) -> None:
    shop = Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "50.00"}})
    budget = shop.budget("2000.00")

    first = preflight(shop).json()
    second = preflight(shop, run_id="run-2").json()

    assert first["decision"] == second["decision"] == "REQUIRE_APPROVAL"
    assert first["approval_request_id"] == second["approval_request_id"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)


@pytest.mark.parametrize(
    ("members", "status", "code", "pointer"),
    [
        ({"stage": "later"}, 422, "invalid_request", "/stage"),
        ({"run_id": None}, 422, "invalid_request", "/run_id"),
        ({"plan": {"format_version": "9.0"}}, 422, "invalid_plan", "/plan/format_version"),
        (
            {"cost_estimate": {"format": "excel", "document": {}}},
            422,
            "invalid_request",
            "/cost_estimate/format",
        ),
        (
            {"cost_estimate": {"format": "infracost", "document": []}},
            422,
            "invalid_request",
            "/cost_estimate/document",
        ),
        (
            {"estimated_monthly_delta_usd": "1.00"},
            422,
            "delta_mismatch",
            "/estimated_monthly_delta_usd",
        ),
        (
            {"cost_estimate": {"format": "infracost", "document": build_estimate("1" + "0" * 13)}},
            422,
            "invalid_request",
            "/cost_estimate/document",
        ),
    ],
)
def test_bad_preflights_are_refused_by_name_and_write_nothing(
    tenant: World, members: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    shop = Shop(tenant)

    response = preflight(shop, **members)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert any(error["pointer"].startswith(pointer) for error in problem["errors"])
    with reading(tenant.id):
        assert not Decision.objects.filter(tenant_id=tenant.id).exists()
