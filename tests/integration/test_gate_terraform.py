"""``POST gate/terraform``: what is decided, held and recorded, seen from outside and in the rows."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connection

from billing.costs.domain import DayAmount
from billing.costs.operations import record_daily_costs
from billing.models import AccountMonth, ReservationLine
from enforcement.gate import evaluate as evaluate_module
from enforcement.models import Decision, IdempotencyKey, LedgerEntry
from governance.models import Approval
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World, issue_key
from valdrix.kernel.db import reading, transaction


def rows_of(world: World) -> tuple[int, ...]:
    """Return how many rows of each kind a tenant has."""
    with reading(world.id):
        return (
            Decision.objects.filter(tenant_id=world.id).count(),
            IdempotencyKey.objects.filter(tenant_id=world.id).count(),
            LedgerEntry.objects.filter(tenant_id=world.id).count(),
            ReservationLine.objects.filter(tenant_id=world.id).count(),
            Approval.objects.filter(tenant_id=world.id).count(),
            AccountMonth.objects.filter(tenant_id=world.id).count(),
        )


def test_a_covered_change_is_allowed_held_and_recorded(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")

    answer = shop.ask("300.00", key="first")

    assert answer["decision"] == "ALLOW"
    assert answer["reason_codes"] == ["within_budget"]
    assert answer["reserved_allocation_usd"] == "300.0000"
    assert answer["estimated_hourly_delta_usd"] == "0.410959"
    assert (answer["persisted"], answer["replayed"], answer["dry_run"]) == (True, False, False)
    assert shop.budget_state(budget)["headroom_usd"] == Decimal(700)
    stored = shop.api.get(f"decisions/{answer['decision_id']}", key=tenant.member.key)
    assert stored.json() == answer
    entries = shop.api.get(f"ledger?decision_id={answer['decision_id']}", key=tenant.admin.key)
    assert [entry["event"] for entry in entries.json()["results"]] == ["reserved", "decision_made"]
    assert check_chain(tenant.id) == 4
    assert find_differences(tenant.id) == []


def test_credits_cover_what_the_budget_does_not(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    wide = shop.grant("reserved", "50.00", expires_at="2099-01-01T00:00:00Z")
    own = shop.grant("reserved", "20.00", project_id="shop")

    answer = shop.ask("160.00")

    assert answer["decision"] == "ALLOW_WITH_CREDITS"
    assert answer["entitlement_reason_code"] == "project_budget_exceeded"
    assert answer["reserved_reserved_credit_usd"] == "60.0000"
    # The project's own grant burns first, though the other one expires.
    assert shop.grant_state(own)["remaining_amount_usd"] == 0
    assert shop.grant_state(wide)["remaining_amount_usd"] == Decimal(10)
    assert find_differences(tenant.id) == []


def test_a_refusal_is_recorded_and_holds_nothing(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")

    answer = shop.ask("100.01", key="too-much")

    assert answer["decision"] == "DENY"
    assert answer["reserved_allocation_usd"] == "0.0000"
    stage = answer["entitlement_waterfall"][1]
    assert (stage["status"], stage["consumed_usd"]) == ("limited", "100.0000")
    assert shop.budget_state(budget)["pending_usd"] == 0
    assert rows_of(tenant)[:4] == (1, 1, 3, 0)


def test_a_denied_key_stays_denied_though_the_budget_grew(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    denied = shop.ask("150.00", key="once")
    change = {"monthly_limit_usd": "1000.00"}
    assert shop.api.patch(f"budgets/{budget}", change, key=tenant.admin.key).status_code == 200

    again = shop.ask("150.00", key="once")

    assert again == {**denied, "replayed": True}
    assert shop.ask("150.00", key="anew")["decision"] == "ALLOW"


def test_a_key_names_one_request_only(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    shop.ask("150.00", key="once")
    before = rows_of(tenant)

    response = shop.send("150.01", key="once")

    assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_reused")
    assert rows_of(tenant) == before
    # The same amount, spelled differently, is the same request.
    assert shop.ask("150.0000", key="once")["replayed"]
    assert shop.ask("150.00", key="once", environment="DEV")["replayed"]


def test_the_header_wins_over_the_body_key(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    first = shop.ask("10.00", key="header", idempotency_key="body")

    assert first["idempotency_key"] == "header"
    assert not shop.ask("10.00", idempotency_key="body")["replayed"]


def test_an_unexpected_fingerprint_is_refused_before_anything_is_evaluated(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    expected = shop.ask("10.00", dry_run=True)["request_fingerprint"]
    before = rows_of(tenant)

    response = shop.send("11.00", key="k", expected_request_fingerprint=expected)

    assert response.status_code == 409
    assert response.json()["code"] == "request_fingerprint_mismatch"
    assert rows_of(tenant) == before
    assert shop.ask("10.00", key="k", expected_request_fingerprint=expected)["persisted"]


def test_a_dry_run_decides_and_leaves_no_row(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    before = rows_of(tenant)

    answer = shop.ask("60.00", key="k", dry_run=True)

    assert (answer["decision"], answer["decision_id"], answer["persisted"]) == (
        "ALLOW",
        None,
        False,
    )
    assert rows_of(tenant) == before
    assert shop.budget_state(budget)["pending_usd"] == 0
    assert not shop.ask("60.00", key="k")["replayed"]


def test_soft_mode_asks_a_person_where_hard_mode_denies(tenant: World) -> None:
    shop = Shop(tenant, modes={"terraform": {"default": "soft"}})
    budget = shop.budget("100.00")

    answer = shop.ask("150.00")

    assert answer["decision"] == "REQUIRE_APPROVAL"
    assert answer["approval_token"] is None
    assert answer["reserved_allocation_usd"] == "0.0000", "not covered, so nothing is held"
    with reading(tenant.id):
        approval = Approval.objects.get(tenant_id=tenant.id)
    assert str(approval.id) == answer["approval_request_id"]
    assert (approval.status, approval.monthly_delta_usd) == ("pending", Decimal(150))
    assert shop.budget_state(budget)["pending_usd"] == 0


def test_what_waits_for_approval_holds_its_whole_amount_when_covered(tenant: World) -> None:
    shop = Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "50.00"}})
    budget = shop.budget("100.00")

    answer = shop.ask("60.00")

    assert answer["decision"] == "REQUIRE_APPROVAL"
    assert answer["reason_codes"] == ["approval_threshold_reached"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)
    assert shop.ask("40.00")["decision"] == "ALLOW"
    assert shop.ask("0.01")["decision"] == "DENY"


def test_shadow_allows_and_says_what_hard_would_have_said(tenant: World) -> None:
    shop = Shop(tenant, modes={"terraform": {"default": "shadow"}})
    budget = shop.budget("100.00")

    answers = [shop.ask("60.00"), shop.ask("60.00")]

    assert [answer["decision"] for answer in answers] == ["ALLOW", "ALLOW"]
    assert [answer["would_have_been"] for answer in answers] == [None, "DENY"]
    assert answers[0]["reserved_allocation_usd"] == "0.0000"
    # Shadow lines are kept, and limit nobody.
    assert shop.budget_state(budget)["headroom_usd"] == Decimal(100)
    assert find_differences(tenant.id) == []
    shop.publish(modes={"terraform": {"default": "hard"}})
    assert shop.ask("100.00")["decision"] == "ALLOW"


def test_a_saving_opens_zero_lines_and_frees_nothing(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    shop.ask("100.00")

    answer = shop.ask("-50.00")

    assert (answer["decision"], answer["reason_codes"]) == ("ALLOW", ["no_cost_increase"])
    assert shop.budget_state(budget)["headroom_usd"] == 0
    with reading(tenant.id):
        lines = ReservationLine.objects.filter(reservation_id=answer["decision_id"])
        assert sorted(line.kind for line in lines) == ["allocation", "exposure"]
        assert {line.amount_usd for line in lines} == {Decimal(0)}


@pytest.mark.parametrize(
    ("environment", "decision"),
    [
        ("dev", "ALLOW"),
        ("prod", "REQUIRE_APPROVAL"),
        ("", "REQUIRE_APPROVAL"),
        ("dеv", "REQUIRE_APPROVAL"),
    ],
)
def test_an_unknown_cost_is_never_zero(tenant: World, environment: str, decision: str) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")

    answer = shop.ask(None, environment=environment)

    assert answer["decision"] == decision
    assert (answer["cost_state"], answer["cost_state_reasons"]) == ("unknown", ["no_estimate"])
    assert answer["estimated_monthly_delta_usd"] is None
    assert answer["estimated_hourly_delta_usd"] is None


def test_an_invented_project_is_no_way_around(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")

    answer = shop.ask("5000.00", project_id="invented", environment="prod")

    assert answer["decision"] == "REQUIRE_APPROVAL"
    assert "no_budget_configured" in answer["reason_codes"]


def test_stages_of_one_run_share_one_reservation(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")

    first = shop.ask("300.00", key="plan", run_id="run-1")
    same = shop.ask("300.00", key="apply", run_id="run-1")
    more = shop.ask("350.00", key="more", run_id="run-1")

    assert (first["reservation_shared"], first["shared_reserved_usd"]) == (False, "0.0000")
    assert (same["reservation_shared"], same["shared_reserved_usd"]) == (True, "300.0000")
    assert same["reserved_allocation_usd"] == "0.0000"
    assert (more["reserved_allocation_usd"], more["shared_reserved_usd"]) == ("50.0000", "350.0000")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(350)
    assert find_differences(tenant.id) == []


def test_a_declared_digest_shares_nothing_across_runs(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")

    for run in ("run-1", "run-2"):
        shop.ask("300.00", key=run, run_id=run, change_digest="sha256:claimed")
    other = shop.ask("300.00", key="x", run_id="run-2", change_digest="sha256:another")

    assert not other["reservation_shared"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(900)


def test_a_named_parent_is_shared_up_to_its_unspent_amount(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    parent = shop.ask("300.00")["decision_id"]

    first = shop.ask("200.00", resource_reference="a", parent_decision_id=parent)
    second = shop.ask("200.00", resource_reference="b", parent_decision_id=parent)
    third = shop.ask("50.00", resource_reference="c", parent_decision_id=parent)

    assert [a["reserved_allocation_usd"] for a in (first, second, third)] == [
        "0.0000",
        "100.0000",
        "50.0000",
    ]
    assert [a["reservation_shared"] for a in (first, second, third)] == [True, True, False]
    assert "parent_decision_not_applicable" in third["reason_codes"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(450)
    assert find_differences(tenant.id) == []


def test_a_part_taken_of_a_parent_is_not_passed_on(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    named = shop.ask("100.00", resource_reference="r0")["decision_id"]

    for number in range(1, 4):
        answer = shop.ask("100.00", resource_reference=f"r{number}", parent_decision_id=named)
        named = answer["decision_id"]

    # The first child shares; its own child finds nothing that is its to give.
    assert shop.budget_state(budget)["pending_usd"] == Decimal(200)
    assert find_differences(tenant.id) == []


def test_what_nobody_approved_lets_nothing_else_through(tenant: World) -> None:
    shop = Shop(tenant, credits={"emergency": {"nonprod": "approval"}})
    shop.budget("60.00")
    shop.grant("emergency", "100.00")
    first = shop.ask("100.00", key="a", run_id="run-1")

    again = shop.ask("100.00", key="b", run_id="run-1")
    child = shop.ask("10.00", resource_reference="x", parent_decision_id=first["decision_id"])
    rehearsed = shop.ask("100.00", run_id="run-1", dry_run=True)

    for answer in (first, again, child, rehearsed):
        assert answer["decision"] == "REQUIRE_APPROVAL"
    assert "shared_reservation_awaits_approval" in again["reason_codes"]
    assert find_differences(tenant.id) == []


def test_an_actuals_budget_counts_real_spending_and_not_what_it_holds_already(
    tenant: World,
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00", basis="actuals")
    today = datetime.now(UTC).date()
    applied = shop.ask("300.00", key="a")["decision_id"]
    Api().post(f"reservations/{applied}/confirm", {}, key=tenant.member.key)
    with transaction(tenant.id):
        day = DayAmount(
            project_id="shop", date=today, amount_usd=Decimal("650.0000"), is_final=True
        )
        record_daily_costs(tenant_id=tenant.id, days=[day], ingested_at=datetime.now(UTC))

    # 650 was really spent, the confirmed 300 are in it: 350 are left.
    refused = shop.ask("350.01", key="b")
    allowed = shop.ask("350.00", key="c")

    assert (refused["decision"], allowed["decision"]) == ("DENY", "ALLOW")
    assert refused["entitlement_waterfall"][1]["used_usd"] == "650.0000"
    assert shop.budget_state(budget)["monthly_limit_usd"] == Decimal(1000)


def test_the_absolute_cap_is_never_missing(tenant: World) -> None:
    shop = Shop(tenant, limits={"plan_monthly_ceiling_usd": "500.00"})
    shop.budget("100000.00")

    stages = shop.ask("10.00")["entitlement_waterfall"]

    # The free tier's 1000, above the policy's own plan ceiling.
    assert (stages[4]["stage"], stages[4]["limit_usd"]) == ("enterprise_ceiling", "1000.0000")


def test_a_parent_of_another_tenant_environment_or_project_shares_nothing(
    tenant: World, other_tenant: World
) -> None:
    shop, other = Shop(tenant), Shop(other_tenant)
    budget = shop.budget("1000.00")
    other.budget("1000.00")
    foreign = other.ask("300.00")["decision_id"]
    own = shop.ask("300.00")["decision_id"]

    answers = [
        shop.ask("10.00", resource_reference="a", parent_decision_id=foreign),
        shop.ask("10.00", resource_reference="b", parent_decision_id=str(uuid.uuid4())),
        shop.ask("10.00", resource_reference="c", parent_decision_id=own, environment="prod"),
    ]

    assert all("parent_decision_not_applicable" in a["reason_codes"] for a in answers)
    assert not any(answer["reservation_shared"] for answer in answers)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(330)


def test_every_matching_budget_is_charged_and_the_smallest_headroom_limits(tenant: World) -> None:
    shop = Shop(tenant)
    wide, narrow = shop.budget("1000.00"), shop.budget("100.00", environment="nonprod")
    team, other = shop.budget("500.00", team="web"), shop.budget("500.00", team="data")

    assert shop.ask("60.00", team="web")["decision"] == "ALLOW"
    refused = shop.ask("60.00", team="web")

    assert refused["decision"] == "DENY"
    assert refused["entitlement_waterfall"][1]["headroom_usd"] == "40.0000"
    held = [shop.budget_state(b)["pending_usd"] for b in (wide, narrow, team, other)]
    assert held == [Decimal(60), Decimal(60), Decimal(60), Decimal(0)]


def test_a_key_bound_to_projects_asks_for_no_other(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    _, bound = issue_key(
        tenant.id, name="bound", role="member", person_id=tenant.member.user_id, projects=["shop"]
    )
    before = rows_of(tenant)
    body = {"project_id": "other", "environment": "dev", "resource_reference": "r"}

    response = Api().post("gate/terraform", body, key=bound)

    assert (response.status_code, response.json()["code"]) == (403, "project_not_allowed")
    assert rows_of(tenant) == before
    assert (
        Api().post("gate/terraform", {**body, "project_id": "shop"}, key=bound).status_code == 200
    )


def test_a_batch_answers_each_item_as_if_sent_alone(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("100.00")

    def item(amount: str, **members: Any) -> dict[str, Any]:
        return {
            "project_id": "shop",
            "environment": "dev",
            "resource_reference": "r",
            "estimated_monthly_delta_usd": amount,
            **members,
        }

    body = {
        "items": [
            item("60.00", idempotency_key="a"),
            item("60.00", idempotency_key="a"),
            item("60.00", idempotency_key="b"),
            item("1e3"),
            item("61.00", idempotency_key="a"),
            {"nonsense": 1},
        ]
    }
    response = shop.api.post("gate/batch", body, key=tenant.member.key)

    results = response.json()["results"]
    assert [one["status"] for one in results] == [200, 200, 200, 422, 409, 422]
    assert [one["body"].get("decision") for one in results[:3]] == ["ALLOW", "ALLOW", "DENY"]
    assert results[1]["body"]["replayed"]
    assert results[3]["body"]["errors"][0]["pointer"] == "/estimated_monthly_delta_usd"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)


@pytest.mark.parametrize("items", [None, [], "x", [{}] * 101])
def test_a_batch_of_the_wrong_size_is_refused_whole(tenant: World, items: Any) -> None:
    response = Api().post("gate/batch", {"items": items}, key=tenant.member.key)

    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_the_database_refuses_an_overdrawn_grant(tenant: World) -> None:
    """The constraint is the second net: even a wrong program cannot take more than there is."""
    shop = Shop(tenant)
    grant = shop.grant("reserved", "10.00")

    with (
        pytest.raises(Exception, match="billing_account_amounts_are_not_negative"),
        transaction(tenant.id),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "UPDATE billing_account SET remaining_usd = remaining_usd - 11,"
            " reserved_usd = reserved_usd + 11 WHERE id = %s",
            [grant],
        )

    assert shop.grant_state(grant)["remaining_amount_usd"] == Decimal(10)


def test_a_committed_decision_whose_answer_was_lost_is_found_again(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks after COMMIT: the decision stands, and it is the answer."""
    shop = Shop(tenant)
    budget = shop.budget("100.00")
    real = evaluate_module._evaluate_once

    def break_after_commit(*arguments: Any) -> dict[str, Any]:
        real(*arguments)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(evaluate_module, "_evaluate_once", break_after_commit)
    answer = shop.ask("60.00", key="k")
    monkeypatch.undo()

    assert (answer["decision"], answer["persisted"]) == ("ALLOW", True)
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)
    assert shop.ask("60.00", key="k") == {**answer, "replayed": True}


@pytest.mark.parametrize(
    ("mode", "decision"), [("shadow", "ALLOW"), ("soft", "REQUIRE_APPROVAL"), ("hard", "DENY")]
)
def test_a_gate_that_cannot_have_its_lock_fails_safe_and_the_retry_is_evaluated(
    tenant: World, settings: Any, mode: str, decision: str
) -> None:
    settings.GATE_LOCK_TIMEOUT_MS = 50
    shop = Shop(tenant, modes={"terraform": {"default": mode}})
    budget = shop.budget("100.00")
    holder = connection.copy("default")
    try:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT set_config('valdrix.tenant', %s, true)", [str(tenant.id)])
            cursor.execute("SELECT 1 FROM billing_account FOR UPDATE")
            answer = shop.ask("60.00", key="k")
            cursor.execute("ROLLBACK")
    finally:
        holder.close()

    assert (answer["decision"], answer["reason_codes"]) == (decision, ["gate_lock_timeout"])
    assert (answer["persisted"], answer["approval_request_id"]) == (True, None)
    assert (answer["reserved_allocation_usd"], answer["entitlement_waterfall"]) == ("0.0000", [])
    assert shop.budget_state(budget)["pending_usd"] == 0
    retried = shop.ask("60.00", key="k")
    assert (retried["decision"], retried["replayed"]) == ("ALLOW", False)
    assert check_chain(tenant.id) >= 4
