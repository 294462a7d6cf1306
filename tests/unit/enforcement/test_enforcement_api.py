"""The gate's contract over HTTP, under the names that release evidence refers to."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from billing.accounts.locking import GateLockContended, GateLockTimeout
from enforcement.gate import evaluate as evaluate_module
from enforcement.models import Decision
from governance.api import throttling
from tests.client import Api
from tests.factories.headroom import Shop, build_policy
from tests.factories.sums import check_chain
from tests.factories.tenants import World
from tests.kubernetes import MONTHLY, UID, a_review, an_object, send_review
from tests.preflight import build_preflight
from tests.reviews import approve, open_shop, refusal
from valdrix.kernel.db import reading
from valdrix.kernel.problems import Refused
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.shared_file import SharedFile

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


PLACED = {"valdrix.io/project": "shop", "valdrix.io/environment": "dev"}


def test_gate_k8s_admission_review_contract_allow(tenant: World) -> None:
    shop = Shop(tenant, k8s={"trust_object_annotations": True})
    budget = shop.budget("1000.00")
    thing = an_object(annotations={**PLACED, MONTHLY: "300.00"})

    response = send_review(a_review(thing), key=tenant.key)

    audit = response["auditAnnotations"]
    assert (response["uid"], response["allowed"]) == (UID, True)
    assert "status" not in response
    assert (audit["decision"], audit["project"], audit["environment"]) == (
        "ALLOW",
        "shop",
        "nonprod",
    )
    stored = shop.api.get(f"decisions/{audit['decision-id']}", key=tenant.key).json()
    assert (stored["source"], stored["action"]) == ("k8s_admission", "k8s.create")
    assert stored["estimated_monthly_delta_usd"] == "300.0000"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)


def test_gate_k8s_admission_review_uses_annotation_cost_inputs_for_deny(tenant: World) -> None:
    shop = Shop(tenant, k8s={"trust_object_annotations": True})
    budget = shop.budget("100.00")
    thing = an_object(annotations={**PLACED, "valdrix.io/estimated-hourly-usd": "0.5"})

    response = send_review(a_review(thing), key=tenant.key)

    status = response["status"]
    assert not response["allowed"]
    assert (status["code"], status["reason"], status["status"]) == (403, "Forbidden", "Failure")
    assert "budget does not cover it" in status["message"]
    assert response["auditAnnotations"]["monthly-delta-usd"] == "365.0000"
    assert response["auditAnnotations"]["reason-codes"].startswith("project_budget_exceeded")
    assert shop.budget_state(budget)["pending_usd"] == 0


@pytest.mark.parametrize("text", ["abc", "-1", "NaN", "1e3", "1_000", "١٢", "", "1.23456"])
def test_gate_k8s_admission_review_rejects_invalid_cost_annotation(
    tenant: World, text: str
) -> None:
    """In hard mode a refused review that says why, else an unknown cost; 422 where it is generic."""
    shop = Shop(tenant, k8s={"trust_object_annotations": True})
    budget = shop.budget("1000.00")
    review = a_review(an_object(annotations={**PLACED, MONTHLY: text}))

    refused = send_review(review, key=tenant.key)
    shop.publish(
        k8s={"trust_object_annotations": True}, modes={"k8s_admission": {"default": "soft"}}
    )
    unknown = send_review(review, key=tenant.key)
    generic = shop.send(None, path="gate/k8s/admission", metadata={"annotations": {MONTHLY: text}})

    assert (refused["allowed"], refused["status"]["code"]) == (False, 422)
    assert MONTHLY in refused["status"]["message"]
    assert (unknown["allowed"], unknown["auditAnnotations"]["cost-state"]) == (True, "unknown")
    assert any(MONTHLY in warning for warning in unknown["warnings"])
    assert (generic.status_code, generic.json()["code"]) == (422, "invalid_request")
    assert generic.json()["errors"][0]["pointer"] == "/metadata/annotations"
    assert shop.budget_state(budget)["pending_usd"] == 0


EVENT = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/provisioner",
    "type": "com.example.requested",
    "data": {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "database/orders",
        "estimated_monthly_delta_usd": "300.00",
    },
}


def send_event(world: World, **members: Any) -> Any:
    event = {**EVENT, **members}
    return Api().post(
        "gate/cloud-event", event, key=world.key, content_type="application/cloudevents+json"
    )


def test_gate_cloud_event_uses_event_id_idempotency_and_contract(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")

    first = send_event(tenant).json()
    again = send_event(tenant).json()

    assert (first["source"], first["decision"]) == ("cloud_event", "ALLOW")
    assert first["idempotency_key"] == "cloudevent:/provisioner:e-1"
    assert again == {**first, "replayed": True}
    # An id is unique only within its source.
    assert send_event(tenant, source="/other").json()["replayed"] is False
    assert shop.budget_state(budget)["pending_usd"] == Decimal(600)
    with reading(tenant.id):
        context = Decision.objects.get(id=first["decision_id"]).context_json
    kept = json.loads(context)["gate_input"]["metadata"]
    sent = json.dumps(EVENT["data"], sort_keys=True, separators=(",", ":")).encode()
    assert kept["cloud_event_data_sha256"] == hashlib.sha256(sent).hexdigest()
    assert kept["cloud_event_id"] == "e-1"


def test_gate_cloud_event_rejects_retry_fingerprint_mismatch(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    first = send_event(tenant).json()
    expected = {"expectedrequestfingerprint": first["request_fingerprint"]}
    changed = {**EVENT["data"], "estimated_monthly_delta_usd": "301.00"}

    same = send_event(tenant, **expected)
    other = send_event(tenant, id="e-2", data=changed, **expected)
    reused = send_event(tenant, data=changed)

    assert same.json() == {**first, "replayed": True}
    assert (other.status_code, other.json()["code"]) == (409, "request_fingerprint_mismatch")
    assert (reused.status_code, reused.json()["code"]) == (409, "idempotency_key_reused")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)


def test_gate_cloud_event_hard_mode_can_deny_by_budget(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")

    response = send_event(tenant)

    assert response.status_code == 200
    assert (response.json()["decision"], response.json()["mode"]) == ("DENY", "hard")
    assert response.json()["entitlement_reason_code"] == "project_budget_exceeded"
    assert shop.budget_state(budget)["pending_usd"] == 0


def test_gate_terraform_preflight_approval_continuation_end_to_end(tenant: World) -> None:
    """What the continuation says is all that a pipeline needs: poll, claim, consume."""
    shop = open_shop(tenant)
    budget = shop.budget("1000.00")
    asked = Api().post(PREFLIGHT, build_preflight(), key=tenant.key).json()
    continuation, binding = asked["continuation"], asked["continuation"]["binding"]
    assert (asked["decision"], continuation["may_proceed"]) == ("REQUIRE_APPROVAL", False)
    assert asked["approval_token"] is None
    poll, calls = continuation["poll"]["url"], continuation["token"]
    assert Api().get(poll, key=tenant.key).json()["status"] == "pending"

    approve(tenant.owner, asked["approval_request_id"])

    assert Api().get(poll, key=tenant.key).json()["status"] == "approved"
    claimed = Api().post(calls["claim"]["url"], {}, key=tenant.key).json()
    body = {
        "approval_token": claimed["approval_token"],
        "monthly_delta_usd": binding["monthly_delta_usd"],
        "hourly_delta_usd": binding["hourly_delta_usd"],
        "change_digest": binding["change_digest"],
        "expected_project_id": binding["expected_project_id"],
        "expected_environment": binding["expected_environment"],
    }
    consumed = Api().post(calls["consume"]["url"], body, key=tenant.key)
    assert (consumed.status_code, consumed.json()["status"]) == (200, "consumed")
    assert refusal(Api().post(calls["consume"]["url"], body, key=tenant.key)) == (
        409,
        "approval_token_replayed",
    )
    assert Api().get(poll, key=tenant.key).json()["status"] == "consumed"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    check_chain(tenant.id)


def test_consume_approval_token_endpoint_rejects_replay_and_tamper(tenant: World) -> None:
    shop = open_shop(tenant)
    shop.budget("1000.00")
    asked = Api().post(PREFLIGHT, build_preflight(), key=tenant.key).json()
    approve(tenant.owner, asked["approval_request_id"])
    claim = f"approvals/{asked['approval_request_id']}/token"
    token = Api().post(claim, {}, key=tenant.key).json()["approval_token"]
    head, payload, signature = token.split(".")
    body = {
        "monthly_delta_usd": "300.00",
        "change_digest": asked["continuation"]["binding"]["change_digest"],
    }

    for tampered in (
        f"{head}.{payload}.{signature[::-1]}",
        f"{head}.{payload[:-2]}AA.{signature}",
        f"{head}.{payload}.",
    ):
        response = Api().post(
            "approvals/consume", {**body, "approval_token": tampered}, key=tenant.key
        )
        assert refusal(response) == (401, "approval_token_invalid")
    above = {**body, "approval_token": token, "monthly_delta_usd": "300.01"}
    assert refusal(Api().post("approvals/consume", above, key=tenant.key)) == (
        409,
        "approval_cost_exceeded",
    )
    once = {**body, "approval_token": token}
    assert Api().post("approvals/consume", once, key=tenant.key).status_code == 200
    assert refusal(Api().post("approvals/consume", once, key=tenant.key)) == (
        409,
        "approval_token_replayed",
    )


def test_enforcement_global_gate_limit_uses_configured_cap(
    tenant: World,
    other_tenant: World,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FI-005: all gate routes and all tenants draw on one cap, which is the configured one."""
    settings.ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP = 6
    counts = Limiter(in_redis=None, in_file=SharedFile(tmp_path))
    monkeypatch.setattr(throttling, "limiter", lambda: counts)
    body = {
        "project_id": "shop", "environment": "dev", "resource_reference": "x",
        "estimated_monthly_delta_usd": "1.00",
    }  # fmt: skip
    routes = [
        ("gate/terraform", body),
        (PREFLIGHT, build_preflight()),
        ("gate/batch", {"items": [body]}),
    ]

    for world in (tenant, other_tenant):
        for route, sent in routes:
            assert Api().post(route, sent, key=world.key).status_code == 200
    refused = Api().post("gate/terraform", body, key=other_tenant.key)

    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert refused["Retry-After"].isdigit()
    assert int(refused["Retry-After"]) >= 1
    with reading(other_tenant.id):
        assert Decision.objects.filter(tenant_id=other_tenant.id).count() == 3
    # What is not a gate has limits of its own, and the guard can be switched off.
    assert Api().get("policies", key=other_tenant.key).status_code == 200
    settings.ENFORCEMENT_GLOBAL_ABUSE_GUARD_ENABLED = False
    assert Api().post("gate/terraform", body, key=other_tenant.key).status_code == 200
    counts.close()
