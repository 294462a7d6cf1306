"""Simulation: what a policy would have said, counted exactly (SPEC 10, BSAFE-002)."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from enforcement.gate.decision import DENY, decide, decode_context
from enforcement.models import Decision, Simulation
from enforcement.replay import operations, queries
from enforcement.replay.queries import Span
from enforcement.replay.simulation import simulate
from governance.models import Approval
from governance.policies.document import parse_policy
from tests.client import Api
from tests.factories.headroom import Shop, build_policy
from tests.factories.tenants import World
from tests.integration.exports.history import make_history
from valdrix.jobs import tasks
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

STRICT = build_policy(
    thresholds={
        "prod": {"require_approval_from_usd": "300.00", "deny_from_usd": "390.00"},
        "nonprod": {"require_approval_from_usd": "11.00"},
    },
    rules=[
        {
            "id": "no-gpu",
            "when": "input.metadata.gpu == true",
            "effect": "deny",
            "message": "No GPU.",
        }
    ],
)


def span_of(world: World) -> Span:
    now = datetime.now(UTC)
    return Span(
        tenant_id=world.id, start_at=now - timedelta(hours=1), end_at=now + timedelta(hours=1)
    )


@pytest.fixture
def shop(tenant: World) -> Shop:
    made = make_history(tenant)
    approve(tenant, "-big.1")
    return made


def approve(world: World, reference: str) -> None:
    """Let a person approve the decision about a resource."""
    with reading(world.id):
        decision = Decision.objects.get(tenant_id=world.id, resource_reference=reference)
    path = f"approvals/{decision.approval_request_id}/approve"
    answer = Api().post(path, {"reason": "agreed"}, key=world.owner.key)
    assert answer.status_code == 200, answer.content


def recompute(world: World, document: dict[str, Any]) -> dict[str, Any]:
    """Decide every decision one by one under a policy with the same ceilings, as slowly as it goes."""
    policy = parse_policy(document)
    counts: Counter[str] = Counter()
    moved: dict[tuple[str, str], list[Decimal]] = {}
    denied = approved = 0
    with reading(world.id):
        rows = list(Decision.objects.filter(tenant_id=world.id, is_fail_safe=False))
        given = {one.id for one in Approval.objects.filter(tenant_id=world.id, status="approved")}
    for row in rows:
        outcome = decide(decode_context(row.context_json), policy)
        counts[outcome.decision] += 1
        usd = max(Decimal(0), row.monthly_delta_usd or Decimal(0))
        if outcome.decision != row.decision:
            moved.setdefault((row.decision, outcome.decision), []).append(usd)
        if outcome.decision == DENY:
            denied += 1
            approved += row.approval_request_id in given
    return {"counts": counts, "moved": moved, "denied": denied, "approved": approved}


def test_it_agrees_with_a_brute_force_recomputation(shop: Shop) -> None:
    result = simulate(span_of(shop.world), parse_policy(STRICT))
    expected = recompute(shop.world, STRICT)

    assert {name: one["decisions"] for name, one in result["would_be"].items()} == {
        name: expected["counts"][name] for name in result["would_be"]
    }
    assert {(one["from"], one["to"]): one["decisions"] for one in result["moved"]} == {
        ends: len(amounts) for ends, amounts in expected["moved"].items()
    }
    assert {(one["from"], one["to"]): one["monthly_increase_usd"] for one in result["moved"]} == {
        ends: f"{sum(amounts):.4f}" for ends, amounts in expected["moved"].items()
    }
    assert len(expected["moved"]) >= 3, "several kinds of change"
    positives = result["false_positives"]
    assert positives["denied"]["decisions"] == expected["denied"]
    assert positives["denied_but_approved_then"]["decisions"] == expected["approved"] == 1
    assert positives["rate"] == f"{Decimal(1) / expected['denied']:.4f}"


def test_the_live_policy_changes_nothing(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    for amount in ("10.00", "60.00", "500.00"):
        shop.ask(amount, resource_reference=amount)
    result = simulate(span_of(tenant), parse_policy(build_policy()))
    assert (result["decisions"], result["changed"], result["moved"]) == (3, 0, [])
    assert result["static"] is True
    assert "headroom stored with it" in result["note"]


def test_changed_decisions_are_listed_with_reasons(shop: Shop) -> None:
    result = simulate(span_of(shop.world), parse_policy(STRICT))
    listed = {one["resource_reference"]: one for one in result["changed_decisions"]}
    gpu = listed["+cmd"]
    assert (gpu["from"], gpu["to"]) == ("ALLOW_WITH_CREDITS", "DENY")
    assert "policy_rule_denies" in gpu["reason_codes_to"] or gpu["reason_codes_to"]
    assert gpu["reason_codes_from"]
    assert listed["-big.1"]["approved_then"] is True
    assert result["changed"] == len(result["changed_decisions"])


def test_the_new_policys_classes_and_ceilings_count(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    shop.ask("10.00", environment="dev")
    low = build_policy(limits={"plan_monthly_ceiling_usd": "5.00"})
    assert simulate(span_of(tenant), parse_policy(low))["would_deny"] == 1
    prod = build_policy(
        environments={"nonprod": ["lab"]},
        thresholds={"prod": {"deny_from_usd": "5.00"}, "nonprod": {}},
    )
    assert simulate(span_of(tenant), parse_policy(prod))["would_deny"] == 1


def test_shadow_is_told_apart(shop: Shop) -> None:
    shadow = build_policy(modes={"terraform": {"default": "shadow"}})
    result = simulate(span_of(shop.world), parse_policy(shadow))
    assert result["would_allow"] == result["decisions"] == 10
    assert result["in_shadow_would_have_been"]["DENY"]["decisions"] >= 1


def test_the_list_is_bounded_and_the_count_is_not(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simulate(span_of(shop.world), parse_policy(STRICT))
    monkeypatch.setattr("enforcement.replay.simulation.LISTED", 1)
    monkeypatch.setattr(queries, "BATCH", 2)
    seen: list[int] = []
    result = simulate(
        span_of(shop.world),
        parse_policy(STRICT),
        progress=lambda done, total: seen.append(done),
    )
    assert len(result["changed_decisions"]) == 1
    assert result["changed"] == whole["changed"] > 1
    assert seen == [2, 4, 6, 8, 10]


# The API


def order(world: World, **members: Any) -> Any:
    return Api().post("simulations", {"policy_document": STRICT, **members}, key=world.admin.key)


def test_a_short_history_is_simulated_at_once(shop: Shop) -> None:
    response = order(shop.world)
    assert response.status_code == 200, response.content
    body = response.json()
    assert body["status"] == "done"
    assert body["progress"] == {"done": 10, "total": 10}
    assert body["result"]["decisions"] == 10
    again = Api().get(f"simulations/{body['id']}", key=shop.world.admin.key)
    assert again.json() == body


def test_a_long_history_is_simulated_by_the_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "AT_ONCE", 0)
    response = order(shop.world)
    assert response.status_code == 202
    body = response.json()
    assert (body["status"], body["result"]) == ("queued", None)

    assert tasks._simulate(shop.world.id) == {"ran": 1}
    assert tasks._simulate(shop.world.id) == {"ran": 0}

    done = Api().get(f"simulations/{body['id']}", key=shop.world.admin.key).json()
    assert (done["status"], done["result"]["decisions"]) == ("done", 10)


def test_a_silent_runners_simulation_is_taken_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "AT_ONCE", 0)
    identity = order(shop.world).json()["id"]
    now = datetime.now(UTC)
    with transaction(shop.world.id):
        Simulation.objects.filter(id=identity).update(status="running", seen_at=now)
    assert operations.find_open(shop.world.id, now=now) == []
    assert not operations.run_simulation(
        tenant_id=shop.world.id, simulation_id=identity, clock=lambda: now
    )
    later = now + operations.SILENT + timedelta(seconds=1)
    assert operations.run_simulation(
        tenant_id=shop.world.id, simulation_id=identity, clock=lambda: later
    )
    assert Api().get(f"simulations/{identity}", key=shop.world.admin.key).json()["status"] == "done"


def test_a_simulation_that_fails_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **names: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(operations, "simulate", broken)
    body = order(shop.world).json()
    assert body["status"] == "failed"
    assert "RuntimeError" in body["error"]
    assert "secret" not in body["error"]


def test_a_document_with_errors_is_refused_with_pointers(tenant: World) -> None:
    body = {"policy_document": {"modes": {"terraform": {"default": "hardest"}}}}
    response = Api().post("simulations", body, key=tenant.admin.key)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith("/policy_document/modes/terraform")
    with reading(tenant.id):
        assert not Simulation.objects.filter(tenant_id=tenant.id).exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"policy_document": {}, "window_start": "soon"},
        {"policy_document": {}, "extra": 1},
        {
            "policy_document": {},
            "window_start": "2026-02-01T00:00:00Z",
            "window_end": "2026-01-01T00:00:00Z",
        },
    ],
)
def test_a_bad_order_is_a_422(tenant: World, body: dict[str, Any]) -> None:
    assert Api().post("simulations", body, key=tenant.admin.key).status_code == 422


def test_members_may_not_and_others_do_not_see_it(shop: Shop, other_tenant: World) -> None:
    assert Api().post("simulations", {}, key=shop.world.member.key).status_code == 403
    identity = order(shop.world).json()["id"]
    assert Api().get(f"simulations/{identity}", key=other_tenant.admin.key).status_code == 404
    assert Api().get(f"simulations/{new_id()}", key=shop.world.admin.key).status_code == 404


# The command


def run(world: World, path: Path, *arguments: str) -> str:
    out = StringIO()
    call_command("simulate", "--policy", str(path), "--tenant", world.slug, *arguments, stdout=out)
    return out.getvalue()


def test_the_command_prints_what_would_have_been(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(STRICT))
    said = run(shop.world, path)
    assert "would_deny" in said
    assert "had been approved by people" in said
    assert json.loads(run(shop.world, path, "--json"))["decisions"] == 10
    with pytest.raises(CommandError, match="nothing was simulated"):
        run(shop.world, path, "--to", "2020-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text", [None, "{", '{"a":1,"a":2}', '{"modes": {"terraform": {"default": "x"}}}']
)
def test_a_file_that_is_no_policy_is_refused(
    tenant: World, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "policy.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CommandError) as refusal:
        run(tenant, path)
    assert refusal.value.returncode == 2
