"""The gate's contract over HTTP, under the names that release evidence refers to."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.accounts.locking import GateLockContended, GateLockTimeout
from enforcement.gate import evaluate as evaluate_module
from tests.client import Api
from tests.factories.headroom import Shop, build_policy
from tests.factories.sums import check_chain
from tests.factories.tenants import World
from tests.preflight import build_preflight
from valdrix.kernel.problems import Refused

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


@pytest.mark.parametrize(
    ("mode", "decision"), [("shadow", "ALLOW"), ("soft", "REQUIRE_APPROVAL"), ("hard", "DENY")]
)
@pytest.mark.parametrize(
    ("reason", "slow_or_broken"),
    [
        ("gate_timeout", "SELECT pg_sleep(5)"),
        ("gate_evaluation_error", "SELECT 1/0"),
    ],
)
def test_gate_failsafe_timeout_and_error_modes(
    tenant: World,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    decision: str,
    reason: str,
    slow_or_broken: str,
) -> None:
    """The database itself is slow, or fails, in the middle of the evaluation."""
    settings.GATE_TIME_BUDGET_MS = 200
    shop = Shop(tenant, modes={"terraform": {"default": mode}})
    budget = shop.budget("1000.00")

    def break_down(**_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(slow_or_broken)

    monkeypatch.setattr(evaluate_module, "read_snapshot", break_down)
    answer = shop.ask("100.00", key="k")
    monkeypatch.undo()

    assert (answer["decision"], answer["mode"]) == (decision, mode)
    assert answer["reason_codes"] == [reason]
    assert (answer["persisted"], answer["approval_request_id"]) == (True, None)
    assert "again" in answer["explanation"]["reason_codes"][0]["action"]
    assert shop.budget_state(budget)["pending_usd"] == 0
    assert shop.ask("100.00", key="k")["decision"] == "ALLOW", "the retry is evaluated"
    check_chain(tenant.id)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (GateLockContended("contended"), "gate_lock_contended"),
        (GateLockTimeout("not had in time"), "gate_lock_timeout"),
    ],
)
def test_gate_lock_failures_route_to_failsafe_with_lock_reason_codes(
    tenant: World, monkeypatch: pytest.MonkeyPatch, failure: Refused, reason: str
) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")

    def refuse(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(evaluate_module, "lock_accounts", refuse)
    response = shop.send("100.00", key="k")
    monkeypatch.undo()

    assert failure.status == 409, "inside; a gate route never shows it"
    assert response.status_code == 200
    assert (response.json()["decision"], response.json()["reason_codes"]) == ("DENY", [reason])
    assert shop.ask("100.00", key="k")["decision"] == "ALLOW"


def test_reconcile_reservation_endpoint_idempotent_replay_header(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    decision = shop.ask("300.00")
    path = f"reservations/{decision['decision_id']}/reconcile"
    body = {"actual_monthly_delta_usd": "250.00", "notes": "first bill"}
    headers = {"Idempotency-Key": "bill-2026-11"}

    first = Api().post(path, body, key=tenant.admin.key, headers=headers)
    again = Api().post(path, body, key=tenant.admin.key, headers=headers)
    other = Api().post(
        path, {**body, "notes": "second bill"}, key=tenant.admin.key, headers=headers
    )

    assert (first.status_code, "Idempotent-Replayed" in first) == (200, False)
    assert (again.status_code, again["Idempotent-Replayed"]) == (200, "true")
    assert again.content == first.content
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert shop.budget_state(budget)["posted_usd"] == Decimal(250)
