"""The evaluation below HTTP, under the names that release evidence refers to."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from billing.models import SettlementRecord
from enforcement.gate import failsafe
from enforcement.gate.decision import decide, decode_context, encode, outcome_sha256
from enforcement.models import Decision, LedgerEntry
from enforcement.reconciliation.operations import Actuals, IdempotencyKeyReused, reconcile
from enforcement.review.claim import claim_token
from enforcement.review.consume import Binding, TokenReplayed, consume
from governance.policies.queries import read_live_policy
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World, system_actor
from tests.integration.test_reconciliation import make_due, overdue
from tests.reviews import approve, open_shop
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

PROVENANCE = (
    "context_version",
    "month_start",
    "month_end",
    "month_elapsed_days",
    "month_total_days",
    "observed_cost_days",
    "latest_cost_date",
    "data_source_mode",
)


def test_evaluate_gate_computed_context_snapshot_metadata_stable_across_runs(
    tenant: World,
) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")

    first, second = shop.ask("10.00", key="a"), shop.ask("10.00", key="b")

    contexts = [answer["computed_context"] for answer in (first, second)]
    assert all(context["generated_at"] for context in contexts)
    assert next({name: c[name] for name in PROVENANCE} for c in contexts) == {
        name: contexts[1][name] for name in PROVENANCE
    }
    assert contexts[0]["data_source_mode"] == "none"
    with reading(tenant.id):
        policy = read_live_policy(tenant.id).policy
        for row in Decision.objects.filter(tenant_id=tenant.id):
            again = encode(decide(decode_context(row.context_json), policy))
            assert again == row.outcome_json
            assert outcome_sha256(again) == row.outcome_sha256


@pytest.mark.parametrize(
    ("mode", "decision"), [("shadow", "ALLOW"), ("soft", "REQUIRE_APPROVAL"), ("hard", "DENY")]
)
def test_resolve_fail_safe_gate_timeout_mode_behavior(mode: str, decision: str) -> None:
    outcome = failsafe.build_outcome(
        failsafe.TIMEOUT, failsafe.SafeMode(mode=mode, scope=f"terraform.{mode}")
    )

    assert (outcome.decision, outcome.mode) == (decision, mode)
    assert outcome.reason_codes == ("gate_timeout",)
    assert (outcome.is_holding, outcome.holds, outcome.routing) == (False, (), None)


def build_actuals(decision: dict[str, Any], actual: str, **changes: Any) -> Actuals:
    """Return what somebody says was spent, with the key that these tests repeat."""
    values = {
        "settlement_id": new_id(),
        "decision_id": uuid.UUID(decision["decision_id"]),
        "actual_monthly_delta_usd": Decimal(actual),
        "notes": "",
        "idempotency_key": "the-key",
    }
    return Actuals(**(values | changes))


def test_reconcile_reservation_idempotent_replay_with_same_key(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    grant = shop.grant("reserved", "50.00")
    decision = shop.ask("140.00")
    actor = system_actor(tenant.id)

    first, is_first_replay = reconcile(actor=actor, actuals=build_actuals(decision, "120.0000"))
    again, is_replay = reconcile(actor=actor, actuals=build_actuals(decision, "120.0000"))

    assert (is_first_replay, is_replay) == (False, True)
    assert again == first
    state = shop.grant_state(grant)
    assert (state["consumed_amount_usd"], state["remaining_amount_usd"]) == (20, 30)
    with reading(tenant.id):
        assert SettlementRecord.objects.filter(tenant_id=tenant.id).count() == 1
        assert LedgerEntry.objects.filter(tenant_id=tenant.id, event="reconciled").count() == 1


def test_reconcile_reservation_idempotent_replay_rejects_payload_mismatch(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    decision, other = shop.ask("300.00", key="a"), shop.ask("200.00", key="b")
    actor = system_actor(tenant.id)
    reconcile(actor=actor, actuals=build_actuals(decision, "250.0000"))

    for actuals in (
        build_actuals(decision, "250.0001"),
        build_actuals(decision, "250.0000", notes="other words"),
        build_actuals(other, "250.0000"),
    ):
        with pytest.raises(IdempotencyKeyReused):
            reconcile(actor=actor, actuals=actuals)

    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["pending_usd"]) == (250, 200)
    with reading(tenant.id):
        assert SettlementRecord.objects.filter(tenant_id=tenant.id).count() == 1


def test_reconcile_overdue_reservations_records_processed_count_metric(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    applied = shop.ask("10.00", key="applied")["decision_id"]
    for number in range(3):
        shop.ask("10.00", key=f"forgotten-{number}", resource_reference=f"r{number}")
    Api().post(f"reservations/{applied}/confirm", {}, key=tenant.key)
    make_due(tenant)
    names = [("auto", "settled"), ("auto_release", "released")]
    before = [_processed(*name) for name in names]

    assert overdue(shop) == {"posted": 1, "released": 3, "inconsistent": 0}

    after = [_processed(*name) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 3]


def _processed(trigger: str, status: str) -> float:
    """Return how many rows the metric has counted in this process."""
    name = "valdrix_ops_enforcement_reservation_reconciliations_total"
    labels = {"trigger": trigger, "status": status}
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_consume_approval_token_rejects_replay(tenant: World) -> None:
    shop = open_shop(tenant)
    shop.budget("1000.00")
    asked = shop.ask("300.00")
    approve(tenant.owner, asked["approval_request_id"])
    claimed = claim_token(
        principal=tenant.member.principal,
        approval_id=uuid.UUID(asked["approval_request_id"]),
        rotate=False,
        issuer="valdrix",
        clock=lambda: datetime.now(UTC),
    )
    binding = Binding(
        monthly_delta_usd=Decimal("300.0000"),
        expected_request_fingerprint=asked["request_fingerprint"],
        idempotency_key="the-key",
    )

    def present(binding: Binding) -> tuple[dict[str, Any], bool]:
        return consume(
            principal=tenant.member.principal,
            text=claimed.text,
            binding=binding,
            issuer="valdrix",
            clock=lambda: datetime.now(UTC),
        )

    first, is_first_replay = present(binding)
    again, is_replay = present(binding)

    assert (is_first_replay, is_replay, again) == (False, True, first)
    with pytest.raises(TokenReplayed):
        present(replace(binding, idempotency_key=None))
    with reading(tenant.id):
        events = LedgerEntry.objects.filter(tenant_id=tenant.id, event="token_consumed")
        assert events.count() == 1
