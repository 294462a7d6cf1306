"""Groups that must agree, permissions beyond a role, and who may say who reviews."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from governance.models import Approval, Review
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World
from tests.preflight import build_preflight
from tests.reviews import ASKS, act, admit, approve, check_books, open_shop, queue_of, refusal, show
from valdrix.kernel.db import reading, transaction

RULE = {
    "id": "both",
    "environment": "prod",
    "reviewer_roles": ["owner", "member"],
    "reviewer_groups_all": ["finance", "platform"],
    "required": 2,
}


@pytest.fixture
def shop(tenant: World) -> Shop:
    made = open_shop(tenant, approval_routing_rules=[RULE])
    made.budget("5000.00")
    return made


def put_group(world: World, name: str, *people: Person) -> None:
    created = Api().post("reviewer-groups", {"name": name}, key=world.owner.key)
    assert created.status_code == 201, created.content
    body = {"person_ids": [person.user_id for person in people]}
    path = f"reviewer-groups/{created.json()['id']}"
    assert Api().put(path, body, key=world.owner.key).json()["person_ids"] == sorted(
        body["person_ids"]
    )


def permit(world: World, person: Person, *permissions: str) -> None:
    path = f"members/{person.user_id}/approval-permissions"
    response = Api().put(path, {"permissions": list(permissions)}, key=world.owner.key)
    assert response.status_code == 200, response.content


def test_one_of_finance_and_one_of_platform(shop: Shop) -> None:
    world = shop.world
    frida, piet, both = (admit(world, "member", name) for name in ("frida", "piet", "both"))
    put_group(world, "finance", frida, both)
    put_group(world, "platform", piet, both)
    asked = shop.ask("300.00", environment="prod")
    approval_id = asked["approval_request_id"]
    assert refusal(act(frida, approval_id, "approve")) == (403, "approval_permission_missing")
    for person in (frida, piet, both):
        permit(world, person, "enforcement.approve.prod")
    assert refusal(act(world.owner, approval_id, "approve")) == (403, "reviewer_group_missing")
    assert queue_of(world.owner) == []
    assert queue_of(frida) == queue_of(both) == [approval_id]

    assert approve(both, approval_id)["status"] == "pending", "one person stands for one group"
    assert queue_of(both) == []
    answer = approve(frida, approval_id)

    assert (answer["status"], answer["approvals_given"]) == ("approved", 2)
    eligible = show(world.member, approval_id)["eligible_reviewers"]
    assert {one["username"] for one in eligible} == {frida.username, piet.username, both.username}
    check_books(world)


def test_two_of_one_group_are_not_enough(shop: Shop) -> None:
    world = shop.world
    people = [admit(world, "member", name) for name in ("fa", "fb", "pa")]
    put_group(world, "finance", *people[:2])
    put_group(world, "platform", people[2])
    for person in people:
        permit(world, person, "enforcement.approve.prod")
    approval_id = shop.ask("300.00", environment="prod")["approval_request_id"]
    assert approve(people[0], approval_id)["status"] == "pending"
    assert refusal(act(people[1], approval_id, "approve")) == (403, "reviewer_group_missing")
    assert queue_of(people[1]) == []
    assert approve(people[2], approval_id)["status"] == "approved"


def test_a_verdict_of_somebody_who_may_not_judge_any_more_does_not_count(shop: Shop) -> None:
    world = shop.world
    frida, piet, other = (admit(world, "member", name) for name in ("frida", "piet", "other"))
    put_group(world, "finance", frida, other)
    put_group(world, "platform", piet)
    for person in (frida, piet, other):
        permit(world, person, "enforcement.approve.prod")
    approval_id = shop.ask("300.00", environment="prod")["approval_request_id"]
    approve(frida, approval_id)
    permit(world, frida)
    answer = approve(piet, approval_id)
    assert (answer["status"], answer["approvals_given"]) == ("pending", 1)
    assert approve(other, approval_id)["status"] == "approved"


def test_members_review_by_an_explicit_rule_and_permission_only(tenant: World) -> None:
    shop = open_shop(tenant)
    shop.budget("5000.00")
    rita = admit(tenant, "member", "rita")
    permit(tenant, rita, "enforcement.approve.nonprod", "enforcement.approve.prod")
    approval_id = shop.ask("300.00")["approval_request_id"]
    assert refusal(act(rita, approval_id, "approve")) == (403, "reviewer_role_missing")
    rule = {"id": "members", "reviewer_roles": ["member"]}
    shop.publish(thresholds=ASKS, approval_routing_rules=[rule])
    routed = shop.ask("300.00", key="again", resource_reference="x")["approval_request_id"]
    assert queue_of(rita) == [routed]
    assert approve(rita, routed)["status"] == "approved"


def test_a_growing_question_has_to_be_judged_again(tenant: World) -> None:
    shop = open_shop(tenant, approvals={"nonprod": {"required": 2}})
    shop.budget("5000.00")
    second, third = admit(tenant, "owner", "olga"), admit(tenant, "owner", "otto")

    def plan(amount: str, run: str) -> dict[str, Any]:
        body = build_preflight(run_id=run, cost_estimate=None, estimated_monthly_delta_usd=amount)
        answer: dict[str, Any] = Api().post("gate/terraform/preflight", body, key=tenant.key).json()
        return answer

    approval_id = plan("200.00", "r1")["approval_request_id"]
    approve(tenant.owner, approval_id)
    assert plan("400.00", "r2")["approval_request_id"] == approval_id
    assert show(tenant.owner, approval_id)["approvals_given"] == 0
    assert approve(second, approval_id)["status"] == "pending"
    answer = approve(third, approval_id)
    assert (answer["status"], answer["max_monthly_delta_usd"]) == ("approved", "400.0000")
    check_books(tenant)


def test_only_owners_say_who_reviews(tenant: World, other_tenant: World) -> None:
    for person in (tenant.member, tenant.admin):
        assert Api().get("reviewer-groups", key=person.key).status_code == 403
        assert Api().post("reviewer-groups", {"name": "x"}, key=person.key).status_code == 403
        path = f"members/{person.user_id}/approval-permissions"
        assert Api().put(path, {"permissions": []}, key=person.key).status_code == 403
    put_group(tenant, "finance", tenant.member)
    owner = tenant.owner.key
    assert refusal(Api().post("reviewer-groups", {"name": "finance"}, key=owner)) == (
        409, "reviewer_group_exists",
    )  # fmt: skip
    group_id = Api().get("reviewer-groups", key=owner).json()["results"][0]["id"]
    path = f"reviewer-groups/{group_id}"
    for people in ([other_tenant.member.user_id], [-1], [2**70], ["1"], [True], "all"):
        assert Api().put(path, {"person_ids": people}, key=owner).status_code == 422
    assert Api().delete(path, key=other_tenant.owner.key).status_code == 404
    stranger = f"members/{other_tenant.member.user_id}/approval-permissions"
    assert Api().put(stranger, {"permissions": []}, key=owner).status_code == 404
    mine = f"members/{tenant.member.user_id}/approval-permissions"
    assert Api().put(mine, {"permissions": ["approve.all"]}, key=owner).status_code == 422
    assert Api().delete(path, key=owner).status_code == 204
    assert Api().get("reviewer-groups", key=owner).json()["results"] == []


def test_two_owners_who_change_one_group_overwrite_nobody(
    tenant: World, run_in_threads: Callable[..., list[object]]
) -> None:
    put_group(tenant, "finance", tenant.member)
    key = tenant.owner.key
    shown = Api().get("reviewer-groups", key=key).json()["results"][0]
    path = f"reviewer-groups/{shown['id']}"

    def put(number: int) -> int:
        people = [tenant.member.user_id, (tenant.admin, tenant.owner)[number].user_id]
        body = {"person_ids": people, "edit_mark": shown["edit_mark"]}
        return int(Api().put(path, body, key=key).status_code)

    assert sorted(run_in_threads(2, put)) == [200, 409]
    stale = Api().put(path, {"person_ids": [], "edit_mark": shown["edit_mark"]}, key=key)
    assert refusal(stale) == (409, "stale_edit")
    now = Api().get("reviewer-groups", key=key).json()["results"][0]
    assert len(now["person_ids"]) == 2
    body = {"person_ids": [], "edit_mark": now["edit_mark"]}
    assert Api().put(path, body, key=key).json()["person_ids"] == []
    # Without a mark, all at once: each is whole, and none fails.
    same = {"person_ids": [tenant.member.user_id, tenant.admin.user_id]}
    statuses = run_in_threads(4, lambda number: Api().put(path, same, key=key).status_code)
    assert statuses == [200] * 4


def test_who_leaves_is_no_reviewer_when_they_come_back(tenant: World) -> None:
    rita = admit(tenant, "member", "rita")
    put_group(tenant, "finance", rita)
    permit(tenant, rita, "enforcement.approve.prod")
    assert Api().delete(f"members/{rita.user_id}", key=tenant.owner.key).status_code == 204
    groups = Api().get("reviewer-groups", key=tenant.owner.key).json()["results"]
    assert groups[0]["person_ids"] == []


@pytest.mark.parametrize("required", [1, 2])
def test_who_asks_reviewers_again_does_not_become_one(tenant: World, required: int) -> None:
    """Asking again is the requester's alone, and no round makes a requester a reviewer."""
    terms = {"required": required, "separate_requester": required == 1}
    shop = open_shop(tenant, approvals={"nonprod": terms})
    shop.budget("1000.00")
    again = "approvals/requests"
    for asker, other in ((tenant.admin, tenant.owner), (tenant.member, tenant.admin)):
        body = {
            "project_id": "shop",
            "environment": "dev",
            "resource_reference": f"by {asker.role}",
            "estimated_monthly_delta_usd": "300.00",
        }
        asked = Api().post("gate/terraform", body, key=asker.key).json()
        approval_id, decision_id = asked["approval_request_id"], asked["decision_id"]
        with transaction(tenant.id):
            rows = Approval.objects.filter(pk=approval_id)
            rows.update(status="withdrawn", closed_at=datetime.now(UTC))
        refused = Api().post(again, {"decision_id": decision_id}, key=other.key)
        assert refusal(refused) == (403, "not_the_requester")
        assert Api().post(again, {"decision_id": decision_id}, key=asker.key).status_code == 200
        if asker is tenant.admin:
            for verb in ("approve", "deny"):
                own = act(asker, approval_id, verb, reason="mine")
                assert refusal(own) == (403, "requester_cannot_review")
        with reading(tenant.id):
            approval = Approval.objects.get(pk=approval_id)
            assert (approval.status, approval.round) == ("pending", 2)
            assert approval.requester_person_id == asker.user_id
            assert not Review.objects.filter(approval=approval).exists()


def test_what_an_older_policy_let_people_approve_is_not_asked_again(tenant: World) -> None:
    """Asked under lax terms, withdrawn, and opened again once the terms are strict."""
    shop = open_shop(tenant)
    asked = shop.ask("300.00")
    approval_id, body = asked["approval_request_id"], {"decision_id": asked["decision_id"]}
    shop.publish(thresholds=ASKS, approvals={"nonprod": {"required": 2}})
    with transaction(tenant.id):
        Approval.objects.update(status="withdrawn", closed_at=datetime.now(UTC))
    refused = Api().post("approvals/requests", body, key=tenant.key)
    assert refusal(refused) == (409, "approval_not_applicable")
    with reading(tenant.id):
        assert Approval.objects.get(pk=approval_id).status == "withdrawn"
