"""People decide: who may, when it is enough, what is held and what goes back (SPEC 3.6, 5, 6)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from enforcement.reconciliation.expiry import expire_approvals
from enforcement.review import approve as approving
from governance.audit.operations import Actor
from governance.models import Approval, Review
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World, issue_key
from tests.preflight import build_preflight
from tests.reviews import (
    ASKS,
    act,
    admit,
    approve,
    check_books,
    events_of,
    open_shop,
    queue_of,
    refusal,
    show,
)
from tests.threads import run_in_threads
from valdrix.kernel.db import reading, transaction


@pytest.fixture
def shop(tenant: World) -> Iterator[Shop]:
    made = open_shop(tenant)
    yield made
    check_books(tenant)


def later(world: World, approval_id: str, after: timedelta) -> datetime:
    with reading(world.id):
        return Approval.objects.get(pk=approval_id).requested_at + after


def expire(world: World, at: datetime) -> dict[str, int]:
    return expire_approvals(
        actor=Actor(tenant_id=world.id, principal_id="system:tests", address=None, at=at)
    )


def test_approving_keeps_what_was_held(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    asked = shop.ask("300.00")
    approval_id = asked["approval_request_id"]
    assert queue_of(shop.world.owner) == [approval_id]

    answer = approve(shop.world.owner, approval_id)

    assert answer == {
        "status": "approved",
        "approvals_given": 1,
        "approvals_required": 1,
        "max_monthly_delta_usd": "300.0000",
    }
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    assert events_of(shop, asked["decision_id"]) == [
        "decision_made", "reserved", "approval_requested", "approval_approved",
    ]  # fmt: skip
    seen = show(shop.world.member, approval_id)
    assert (seen["status"], seen["approvals_given"]) == ("approved", 1)
    assert queue_of(shop.world.owner) == []
    assert refusal(act(shop.world.owner, approval_id, "approve")) == (409, "approval_already_given")


def test_what_nothing_covers_is_an_approved_overrun(shop: Shop) -> None:
    shop.publish(modes={"terraform": {"default": "soft"}})
    budget, grant = shop.budget("100.00"), shop.grant("reserved", "30.00")
    asked = shop.ask("200.00")
    assert (asked["decision"], shop.budget_state(budget)["pending_usd"]) == ("REQUIRE_APPROVAL", 0)

    approve(shop.world.owner, asked["approval_request_id"])

    state = shop.budget_state(budget)
    assert (state["pending_usd"], state["overrun_usd"], state["headroom_usd"]) == (100, 70, 0)
    assert shop.grant_state(grant)["reserved_amount_usd"] == Decimal(30)
    assert events_of(shop, asked["decision_id"])[-3:] == [
        "approval_approved", "reserved", "overrun_reserved",
    ]  # fmt: skip
    check_books(shop.world)


@pytest.mark.parametrize(
    ("actual", "posted", "overrun", "consumed"),
    [
        ("50.00", 50, 0, 0),
        ("120.00", 100, 0, 20),
        ("150.00", 100, 20, 30),
        ("250.00", 100, 120, 30),
    ],
)
def test_an_approved_overrun_settles_against_what_was_spent(
    shop: Shop, actual: str, posted: int, overrun: int, consumed: int
) -> None:
    shop.publish(modes={"terraform": {"default": "soft"}})
    budget, grant = shop.budget("100.00"), shop.grant("reserved", "30.00")
    asked = shop.ask("200.00")
    approve(shop.world.owner, asked["approval_request_id"])

    response = Api().post(
        f"reservations/{asked['decision_id']}/reconcile",
        {"actual_monthly_delta_usd": actual},
        key=shop.world.admin.key,
    )

    assert response.status_code == 200, response.content
    answer = response.json()
    assert Decimal(answer["drift_usd"]) == Decimal(actual) - 200, "200 was approved"
    state = shop.budget_state(budget)
    assert (state["pending_usd"], state["posted_usd"], state["overrun_usd"]) == (0, posted, overrun)
    assert shop.grant_state(grant)["consumed_amount_usd"] == Decimal(consumed)


def test_denial_gives_the_hold_back_at_once(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    asked = shop.ask("300.00")
    approval_id = asked["approval_request_id"]
    assert refusal(act(shop.world.owner, approval_id, "deny")) == (422, "reason_required")
    assert refusal(act(shop.world.owner, approval_id, "deny", reason=" ")) == (
        422, "invalid_request",
    )  # fmt: skip

    answer = act(shop.world.owner, approval_id, "deny", reason="not this quarter").json()

    assert answer["status"] == "denied"
    assert shop.budget_state(budget)["pending_usd"] == 0
    assert events_of(shop, asked["decision_id"])[-2:] == ["approval_denied", "released"]
    assert refusal(act(shop.world.owner, approval_id, "approve")) == (409, "approval_denied")
    assert refusal(act(shop.world.owner, approval_id, "withdraw")) == (409, "approval_denied")
    assert show(shop.world.member, approval_id)["reviews"][0]["reason"] == "not this quarter"


@pytest.mark.parametrize("given", [False, True])
def test_the_requester_withdraws_until_it_is_spent(shop: Shop, given: bool) -> None:
    shop.publish(thresholds=ASKS, modes={"terraform": {"default": "soft"}})
    budget = shop.budget("250.00")
    asked = shop.ask("300.00" if given else "200.00")
    approval_id = asked["approval_request_id"]
    if given:
        approve(shop.world.owner, approval_id)
        assert shop.budget_state(budget)["overrun_usd"] == Decimal(50)

    assert act(shop.world.member, approval_id, "withdraw").json()["status"] == "withdrawn"

    state = shop.budget_state(budget)
    assert (state["pending_usd"], state["overrun_usd"]) == (0, 0)
    assert events_of(shop, asked["decision_id"])[-2:] == ["approval_withdrawn", "released"]
    assert refusal(act(shop.world.owner, approval_id, "approve")) == (409, "approval_withdrawn")


def test_one_that_was_given_and_not_spent_expires(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    approve(shop.world.owner, approval_id)
    soon = later(shop.world, approval_id, timedelta(hours=23))
    assert expire(shop.world, soon) == {"expired": 0, "released": 0}

    at = later(shop.world, approval_id, timedelta(days=2))
    assert expire(shop.world, at) == {"expired": 1, "released": 1}

    assert shop.budget_state(budget)["pending_usd"] == 0
    assert show(shop.world.member, approval_id)["status"] == "expired"


@pytest.mark.parametrize("environment", ["prod", "dev"])
def test_roles_approve_where_they_may(shop: Shop, environment: str) -> None:
    shop.budget("1000.00")
    approval_id = shop.ask("300.00", environment=environment)["approval_request_id"]
    reviewer = admit(shop.world, "member", "rita")
    assert refusal(act(reviewer, approval_id, "approve")) == (403, "reviewer_role_missing")
    assert queue_of(reviewer) == []
    if environment == "prod":
        assert queue_of(shop.world.admin) == []
        assert refusal(act(shop.world.admin, approval_id, "approve")) == (
            403, "approval_permission_missing",
        )  # fmt: skip
        assert refusal(act(shop.world.admin, approval_id, "deny", reason="no")) == (
            403, "approval_permission_missing",
        )  # fmt: skip
        assert approve(shop.world.owner, approval_id)["status"] == "approved"
    else:
        assert queue_of(shop.world.admin) == [approval_id]
        assert approve(shop.world.admin, approval_id)["status"] == "approved"


def test_two_different_people_neither_of_them_the_requester(shop: Shop) -> None:
    shop.publish(
        thresholds=ASKS, approvals={"nonprod": {"required": 2, "separate_requester": False}}
    )
    budget = shop.budget("1000.00")
    asked = (
        Api()
        .post(
            "gate/terraform",
            {
                "project_id": "shop",
                "environment": "dev",
                "resource_reference": "module.web",
                "estimated_monthly_delta_usd": "300.00",
            },
            key=shop.world.admin.key,
        )
        .json()
    )
    approval_id = asked["approval_request_id"]
    assert refusal(act(shop.world.admin, approval_id, "approve")) == (
        403, "requester_cannot_review",
    )  # fmt: skip

    first = approve(shop.world.owner, approval_id)
    assert (first["status"], first["approvals_given"], first["approvals_required"]) == (
        "pending", 1, 2,
    )  # fmt: skip
    assert refusal(act(shop.world.owner, approval_id, "approve")) == (
        409, "approval_already_reviewed",
    )  # fmt: skip
    assert queue_of(shop.world.owner) == []
    second = admit(shop.world, "owner", "olga")
    assert approve(second, approval_id)["status"] == "approved"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    assert events_of(shop, asked["decision_id"])[-2:] == ["approval_given", "approval_approved"]


def test_unknown_cost_is_approved_up_to_an_amount(shop: Shop) -> None:
    shop.publish(unknown_cost={"prod": "require_approval", "nonprod": "require_approval"})
    budget = shop.budget("120.00")
    approval_id = shop.ask(None)["approval_request_id"]
    owner = shop.world.owner
    assert refusal(act(owner, approval_id, "approve", reason="fine")) == (422, "ceiling_required")
    assert refusal(act(owner, approval_id, "approve", max_monthly_delta_usd="150.00")) == (
        422, "reason_required",
    )  # fmt: skip

    answer = approve(owner, approval_id, reason="a trial", max_monthly_delta_usd="150.00")

    assert answer["max_monthly_delta_usd"] == "150.0000"
    state = shop.budget_state(budget)
    assert (state["pending_usd"], state["overrun_usd"]) == (120, 30)


def test_the_enterprise_ceiling_is_checked_again(shop: Shop) -> None:
    shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    shop.publish(
        thresholds={"nonprod": {"require_approval_from_usd": "100.00"}},
        limits={
            "plan_monthly_ceiling_usd": "200.00", "enterprise_monthly_ceiling_usd": "299.99",
        },
    )  # fmt: skip

    assert refusal(act(shop.world.owner, approval_id, "approve")) == (409, "ceiling_exceeded")

    seen = show(shop.world.owner, approval_id)
    assert (seen["status"], seen["approvals_given"], seen["reviews"]) == ("pending", 0, [])


def test_a_plan_ceiling_that_was_asked_about_is_lifted(shop: Shop) -> None:
    soft = {"modes": {"terraform": {"default": "soft"}}}
    limits = {"plan_monthly_ceiling_usd": "200.00", "enterprise_monthly_ceiling_usd": "1000.00"}
    shop.publish(**soft, limits=limits)
    budget = shop.budget("1000.00")
    asked = shop.ask("300.00")
    assert "plan_limit_exceeded" in asked["reason_codes"]
    assert approve(shop.world.owner, asked["approval_request_id"])["status"] == "approved"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)


def test_joined_questions_share_their_approval_and_its_separation(shop: Shop) -> None:
    shop.publish(
        approvals={"nonprod": {"required": 1, "separate_requester": True}},
        thresholds={"nonprod": {"require_approval_from_usd": "100.00"}},
    )
    budget = shop.budget("1000.00")
    first = (
        Api()
        .post(
            "gate/terraform/preflight", build_preflight(run_id="run-1"), key=shop.world.member.key
        )
        .json()
    )
    joined = (
        Api()
        .post("gate/terraform/preflight", build_preflight(run_id="run-2"), key=shop.world.admin.key)
        .json()
    )
    approval_id = first["approval_request_id"]
    assert joined["approval_request_id"] == approval_id
    assert refusal(act(shop.world.admin, approval_id, "approve")) == (
        403, "requester_cannot_review",
    )  # fmt: skip
    assert queue_of(shop.world.admin) == []

    approve(shop.world.owner, approval_id)

    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    mine = Api().get("approvals?mine=true", key=shop.world.admin.key).json()["results"]
    assert [row["id"] for row in mine] == [approval_id]


def test_emergency_credits_take_a_reason(shop: Shop) -> None:
    shop.publish(
        thresholds={"nonprod": {"require_approval_from_usd": "1.00"}},
        credits={"emergency": {"prod": "approval", "nonprod": "approval"}},
    )
    shop.budget("100.00")
    grant = shop.grant("emergency", "500.00")
    approval_id = shop.ask("150.00")["approval_request_id"]
    assert show(shop.world.owner, approval_id)["reason_required"] is True
    assert refusal(act(shop.world.owner, approval_id, "approve")) == (422, "reason_required")
    approve(shop.world.owner, approval_id, reason="launch day")
    assert shop.grant_state(grant)["reserved_amount_usd"] == Decimal(50)


def test_others_see_nothing_and_cannot_act(shop: Shop, other_tenant: World) -> None:
    shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    stranger = other_tenant.owner
    for verb in ("approve", "deny", "withdraw"):
        assert refusal(act(stranger, approval_id, verb, reason="x")) == (404, "not_found")
    assert Api().get(f"approvals/{approval_id}", key=stranger.key).status_code == 404
    assert queue_of(stranger) == []
    bystander = admit(shop.world, "member", "bea")
    assert refusal(Api().get(f"approvals/{approval_id}", key=bystander.key)) == (
        403, "permission_denied",
    )  # fmt: skip
    assert refusal(act(bystander, approval_id, "withdraw")) == (403, "reviewer_role_missing")
    assert refusal(Api().get("approvals", key=bystander.key)) == (403, "role_missing")
    assert show(shop.world.member, approval_id)["status"] == "pending"


def test_a_key_without_the_scope_does_not_review(shop: Shop) -> None:
    shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    owner = shop.world.owner
    _, key = issue_key(shop.world.id, name="no scope", role="owner", person_id=owner.user_id)
    for verb in ("approve", "deny"):
        response = Api().post(f"approvals/{approval_id}/{verb}", {"reason": "x"}, key=key)
        assert refusal(response) == (403, "scope_missing")
    assert Api().get("approvals/queue", key=key).json()["results"] == []


def test_asking_again_after_expiry_opens_a_new_round(shop: Shop) -> None:
    shop.publish(modes={"terraform": {"default": "soft"}})
    shop.budget("10.00")
    asked = shop.ask("200.00")
    approval_id, body = asked["approval_request_id"], {"decision_id": asked["decision_id"]}
    member = shop.world.member
    assert refusal(Api().post("approvals/requests", body, key=member.key)) == (
        409, "approval_not_applicable",
    )  # fmt: skip
    assert act(member, approval_id, "withdraw").status_code == 200

    response = Api().post("approvals/requests", {**body, "reason": "again"}, key=member.key)

    assert response.status_code == 200, response.content
    assert response.json()["status"] == "pending"
    assert queue_of(shop.world.owner) == [approval_id]
    assert approve(shop.world.owner, approval_id)["status"] == "approved"


def test_what_was_refused_or_given_back_cannot_be_argued_into_an_approval(shop: Shop) -> None:
    shop.budget("1000.00")
    refused = shop.ask("5000.00", key="deny")
    assert refused["decision"] == "DENY"
    held = shop.ask("200.00", key="held")
    act(shop.world.member, held["approval_request_id"], "withdraw")
    allowed = shop.ask("10.00", key="allow", resource_reference="x")
    for answer in (refused, held, allowed):
        body = {"decision_id": answer["decision_id"]}
        assert refusal(Api().post("approvals/requests", body, key=shop.world.member.key)) == (
            409, "approval_not_applicable",
        )  # fmt: skip


def test_bad_input_changes_nothing(shop: Shop) -> None:
    shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    owner = shop.world.owner
    bodies: list[Any] = [
        {"reason": 1}, {"reason": "x" * 2001}, {"max_monthly_delta_usd": "1e3"},
        {"max_monthly_delta_usd": "300.01"}, {"max_monthly_delta_usd": "NaN"}, {"extra": 1},
        {"reason": "nul\u0000"}, [],
    ]  # fmt: skip
    for body in bodies:
        response = Api().post(f"approvals/{approval_id}/approve", body, key=owner.key)
        assert response.status_code in {400, 422}, (body, response.content)
    assert Api().get("approvals/queue?limit=0", key=owner.key).status_code == 422
    assert Api().get("approvals?mine=maybe", key=owner.key).status_code == 422
    assert show(owner, approval_id)["reviews"] == []


def preflight(shop: Shop, amount_usd: str, run_id: str) -> dict[str, Any]:
    """Ask about one plan, whose digest is computed: later runs join its approval."""
    body = build_preflight(
        run_id=run_id, cost_estimate=None, estimated_monthly_delta_usd=amount_usd
    )
    answer = Api().post("gate/terraform/preflight", body, key=shop.world.key)
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def test_a_verdict_counts_for_what_was_shown(shop: Shop) -> None:
    approval_id = str(shop.ask("300.00")["approval_request_id"])
    owner, mark = shop.world.owner, show(shop.world.owner, approval_id)["review_mark"]
    with transaction(shop.world.id):
        rows = Approval.objects.filter(pk=approval_id)
        rows.update(monthly_delta_usd="900.0000")
    for verb in ("approve", "deny", "withdraw"):
        answer = act(owner, approval_id, verb, reason="seen", review_mark=mark)
        assert refusal(answer) == (409, "stale_approval"), verb
    with transaction(shop.world.id):
        rows.update(monthly_delta_usd="300.0000", required=2)
    assert refusal(act(owner, approval_id, "approve", review_mark=mark)) == (409, "stale_approval")
    with reading(shop.world.id):
        assert not Review.objects.exists()
        assert Approval.objects.get().status == "pending"
    with transaction(shop.world.id):
        rows.update(required=1)
    for wrong, status in ((1, 422), ("", 422), ("x" * 300, 422), ("x", 409)):
        answer = act(owner, approval_id, "approve", review_mark=wrong)
        assert answer.status_code == status, wrong
    listed = Api().get("approvals/queue", key=owner.key).json()["results"]
    assert [one["review_mark"] for one in listed] == [mark]
    assert approve(owner, approval_id, review_mark=mark)["status"] == "approved"


def test_an_amount_raised_while_the_locks_are_taken_is_not_approved_unseen(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page showed 150; in the same instant the same change was asked for 900."""
    asked = preflight(shop, "150.00", "r1")
    approval_id = str(asked["approval_request_id"])
    mark = show(shop.world.owner, approval_id)["review_mark"]
    lock, raised = approving.lock_for_approval, []

    def lock_late(*args: Any, **options: Any) -> Any:
        if not raised:
            raised.extend(run_in_threads(1, lambda _: preflight(shop, "900.00", "r2")))
        return lock(*args, **options)

    monkeypatch.setattr(approving, "lock_for_approval", lock_late)
    answer = act(shop.world.owner, approval_id, "approve", review_mark=mark)

    assert [one["approval_request_id"] for one in raised] == [approval_id]
    assert refusal(answer) == (409, "stale_approval")
    shown = show(shop.world.owner, approval_id)
    assert (shown["status"], shown["estimated_monthly_delta_usd"]) == ("pending", "900.0000")
    assert shown["review_mark"] != mark
    assert shown["reviews"] == []
    approve(shop.world.owner, approval_id, review_mark=shown["review_mark"])
    check_books(shop.world)
