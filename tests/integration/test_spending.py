"""A gate that may spend an approval of its computed change goes ahead by it, once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from enforcement.adapters.terraform import preflight_to_gate_request
from enforcement.gate.ask import Ask, TimeBudget
from enforcement.gate.decision import decide, decode_context, encode
from enforcement.gate.evaluate import evaluate
from enforcement.integrity.queries import run_checks
from enforcement.models import Decision
from governance.models import Approval
from governance.policies.queries import read_live_policy
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.preflight import build_plan, build_preflight
from tests.reviews import approve
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

BUDGET = TimeBudget(total_ms=10_000, lock_ms=5_000)


@pytest.fixture
def shop(tenant: World) -> Iterator[Shop]:
    made = Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "100.00"}})
    made.budget("1000.00")
    yield made
    assert find_differences(tenant.id) == []
    check_chain(tenant.id)


def ask(shop: Shop, *, may_spend: bool = True, **members: Any) -> dict[str, Any]:
    """Ask as a run task does: by a plan, without a token."""
    body = build_preflight(**members)
    request = preflight_to_gate_request(
        body, actor=shop.world.member.principal.principal_id, header_key=None
    )
    return evaluate(
        Ask(
            tenant_id=shop.world.id,
            person_id=shop.world.member.user_id,
            request=request,
            decision_id=new_id(),
            charge_id=new_id(),
            approval_id=new_id(),
            clock=lambda: datetime.now(UTC),
            may_spend_approval=may_spend,
        ),
        budget=BUDGET,
    )


def give(world: World, approval_id: str, ceiling: str = "300.00", **values: Any) -> None:
    """Let the owner approve, and then make of it what a test wants."""
    approve(world.owner, approval_id)
    with transaction(world.id):
        Approval.objects.filter(pk=approval_id).update(
            **{"max_monthly_delta_usd": Decimal(ceiling)} | values
        )


def status_of(world: World, approval_id: str) -> str:
    with reading(world.id):
        return str(Approval.objects.get(pk=approval_id).status)


def test_the_same_computed_change_spends_its_approval_once(shop: Shop) -> None:
    first = ask(shop)
    assert first["decision"] == "REQUIRE_APPROVAL"
    approval_id = first["approval_request_id"]
    approve(shop.world.owner, approval_id)

    spent = ask(shop, run_id="run-2")

    assert (spent["decision"], spent["approval_request_id"]) == ("ALLOW", approval_id)
    assert (spent["approval_required"], spent["reservation_shared"]) == (False, True)
    assert "approval_spent" in spent["reason_codes"]
    assert status_of(shop.world, approval_id) == "consumed"
    entries = shop.api.get(
        f"ledger?decision_id={spent['decision_id']}&order=asc", key=shop.world.admin.key
    ).json()["results"]
    assert {entry["approval_request_id"] for entry in entries} == {approval_id}
    assert [entry["event"] for entry in entries] == [
        "decision_made", "reserved", "approval_consumed",
    ]  # fmt: skip
    again = ask(shop, run_id="run-3")
    assert again["decision"] == "REQUIRE_APPROVAL", "one approval lets one run through"
    assert run_checks(shop.world.id).violated == ()


def test_later_stages_of_the_run_that_spent_it_go_ahead_too(shop: Shop) -> None:
    approval_id = ask(shop)["approval_request_id"]
    give(shop.world, approval_id)
    ask(shop, run_id="run-2")

    later = ask(shop, run_id="run-2", stage="pre_apply")

    assert (later["decision"], later["approval_request_id"]) == ("ALLOW", approval_id)
    assert run_checks(shop.world.id).violated == ()


def test_the_decision_replays_to_the_same_bytes(shop: Shop) -> None:
    give(shop.world, ask(shop)["approval_request_id"])
    spent = ask(shop, run_id="run-2")
    with reading(shop.world.id):
        row = Decision.objects.get(pk=spent["decision_id"])
        policy = read_live_policy(shop.world.id).policy
    assert encode(decide(decode_context(row.context_json), policy)) == row.outcome_json


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"plan": build_plan("m5.24xlarge")}, id="another plan"),
        pytest.param({"environment": "prod"}, id="another environment"),
        pytest.param({"project_id": "other"}, id="another project"),
        pytest.param({"resource_reference": "module.other"}, id="another resource"),
        pytest.param({"plan": None, "change_digest": "declared"}, id="declared"),
        pytest.param(
            {"cost_estimate": None, "estimated_monthly_delta_usd": "300.01"}, id="a cent above"
        ),
        pytest.param({"cost_estimate": None}, id="of unknown cost"),
    ],
)
def test_what_was_not_approved_spends_nothing(shop: Shop, change: dict[str, Any]) -> None:
    shop.publish(
        thresholds={name: {"require_approval_from_usd": "100.00"} for name in ("prod", "nonprod")},
        unknown_cost={"prod": "require_approval", "nonprod": "require_approval"},
    )
    approval_id = ask(shop)["approval_request_id"]
    give(shop.world, approval_id)

    answer = ask(shop, run_id="run-2", **change)

    assert answer["decision"] != "ALLOW"
    assert answer["approval_request_id"] != approval_id
    assert status_of(shop.world, approval_id) == "approved"


@pytest.mark.parametrize(
    "values",
    [
        {"status": "denied"},
        {"status": "withdrawn"},
        {"status": "consumed"},
        {"expires_at": datetime.now(UTC) - timedelta(minutes=1)},
        {"source": "k8s_admission"},
    ],
    ids=["denied", "withdrawn", "consumed", "past its time", "of another source"],
)
def test_an_approval_that_is_over_is_not_spent(shop: Shop, values: dict[str, Any]) -> None:
    approval_id = ask(shop)["approval_request_id"]
    give(shop.world, approval_id, **values)
    assert ask(shop, run_id="run-2")["decision"] == "REQUIRE_APPROVAL"


def test_another_tenant_s_approval_is_not_spent(shop: Shop, other_tenant: World) -> None:
    give(shop.world, ask(shop)["approval_request_id"])
    other = Shop(other_tenant, thresholds={"nonprod": {"require_approval_from_usd": "100.00"}})
    other.budget("1000.00")
    assert ask(other, run_id="run-2")["decision"] == "REQUIRE_APPROVAL"


def test_a_door_that_may_not_spend_asks_again_and_reads_nothing_more(shop: Shop) -> None:
    approval_id = ask(shop)["approval_request_id"]
    give(shop.world, approval_id)
    counts = []
    for may_spend in (False, True):
        with CaptureQueriesContext(connection) as captured:
            answer = ask(shop, may_spend=may_spend, run_id=f"run-{may_spend}", stage="pre_plan")
        reads = [one for one in captured.captured_queries if "max_monthly_delta_usd," in one["sql"]]
        counts.append(len(reads))
        assert (answer["decision"] == "ALLOW") is may_spend
    assert counts == [0, 1]


def test_a_dry_run_says_so_and_spends_nothing(shop: Shop) -> None:
    approval_id = ask(shop)["approval_request_id"]
    give(shop.world, approval_id)
    rehearsed = ask(shop, run_id="run-2", dry_run=True)
    assert (rehearsed["decision"], rehearsed["approval_request_id"]) == ("ALLOW", approval_id)
    assert status_of(shop.world, approval_id) == "approved"


def test_one_of_many_runs_at_once_spends_it(shop: Shop, run_in_threads: Any) -> None:
    approval_id = ask(shop)["approval_request_id"]
    approve(shop.world.owner, approval_id)

    answers = run_in_threads(6, lambda number: ask(shop, run_id=f"run-{number + 2}"))

    decisions = sorted(answer["decision"] for answer in answers)
    assert decisions == ["ALLOW", *["REQUIRE_APPROVAL"] * 5]
    assert uuid.UUID(approval_id)
    assert run_checks(shop.world.id).violated == ()
