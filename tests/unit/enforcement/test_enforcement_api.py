"""The gate's contract over HTTP, under the names that release evidence refers to."""

from __future__ import annotations

from decimal import Decimal

from tests.client import Api
from tests.factories.headroom import Shop, build_policy
from tests.factories.tenants import World
from tests.preflight import build_preflight

PREFLIGHT = "gate/terraform/preflight"


def test_gate_terraform_uses_idempotency_key(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")

    first = shop.ask("100.00", key="ci-42")
    again = shop.ask("100.00", key="ci-42")

    assert first["idempotency_key"] == "ci-42"
    assert again == {**first, "replayed": True}
    assert shop.budget_state(budget)["pending_usd"] == Decimal(100)


def test_gate_terraform_preflight_contract_and_retry_binding(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    body = build_preflight()

    first = Api().post(PREFLIGHT, body, key=tenant.key).json()

    continuation = first["continuation"]
    assert continuation["may_proceed"] is True
    assert continuation["poll"]["url"] == f"/api/v1/enforcement/decisions/{first['decision_id']}"
    binding = continuation["binding"]
    assert binding["expected_request_fingerprint"] == first["request_fingerprint"]
    assert binding["monthly_delta_usd"] == "300.0000"
    assert first["idempotency_key"] == "terraform:run-1:post_plan"
    assert (first["approval_token"], first["approval_token_contract"]) == (
        None,
        "approval_flow_only",
    )
    bound = {**body, "expected_request_fingerprint": binding["expected_request_fingerprint"]}
    retried = Api().post(PREFLIGHT, bound, key=tenant.key).json()
    assert retried == {**first, "replayed": True}


def test_gate_terraform_preflight_rejects_retry_fingerprint_mismatch(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    first = Api().post(PREFLIGHT, build_preflight(), key=tenant.key).json()

    changed = build_preflight(
        resource_reference="module.other",
        expected_request_fingerprint=first["request_fingerprint"],
    )
    response = Api().post(PREFLIGHT, changed, key=tenant.key)

    assert response.status_code == 409
    assert response.json()["code"] == "request_fingerprint_mismatch"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)


def test_policy_upsert_accepts_policy_document_contract(tenant: World) -> None:
    document = build_policy(unknown_cost={"prod": "deny", "nonprod": "require_approval"})
    body = {"policy_document": document, "comment": "first", "base_version": 0}

    response = Api().put("policies", body, key=tenant.admin.key)

    published = response.json()
    assert response.status_code == 200
    assert published["policy_version"] == 1
    assert published["policy_document"] == document
    assert len(published["policy_document_sha256"]) == 64
    live = Api().get("policies", key=tenant.member.key).json()
    assert live["policy_document_sha256"] == published["policy_document_sha256"]
