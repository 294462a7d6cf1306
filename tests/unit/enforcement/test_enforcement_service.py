"""The evaluation below HTTP, under the names that release evidence refers to."""

from __future__ import annotations

import pytest

from enforcement.gate import failsafe
from enforcement.gate.decision import decide, decode_context, encode, outcome_sha256
from enforcement.models import Decision
from governance.policies.queries import read_live_policy
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.kernel.db import reading

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
