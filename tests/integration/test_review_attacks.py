"""Attacks on reviews: what changes while a question waits, and who could have asked it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from enforcement.review import approve as approving
from enforcement.review import refuse as refusing
from governance.audit.operations import Actor
from governance.identity import reviewing
from governance.identity.hands import Use, find_hands
from governance.identity.operations import (
    change_role,
    issue_api_key,
    remove_member,
    rotate_api_key,
)
from governance.integrations.operations import create_integration, rotate_secret
from governance.models import ReviewerGroup, User
from governance.workloads.operations import register_issuer
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World, system_actor
from tests.integration.test_console_doors import a_key_set
from tests.integration.test_reviewers import permit, put_group
from tests.preflight import build_preflight
from tests.reviews import ASKS, act, admit, approve, check_books, open_shop, queue_of, refusal, show
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

BOTH = {
    "id": "both",
    "environment": "prod",
    "reviewer_roles": ["owner", "member"],
    "reviewer_groups_all": ["finance", "platform"],
    "required": 2,
}
HOUR = timedelta(hours=1)
GITHUB = "https://token.actions.githubusercontent.com"
HELD = (403, "credential_holder_cannot_review")


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Give a tenant where a change from 100 dollars on needs an approval, and a budget."""
    made = open_shop(tenant)
    made.budget("5000.00")
    return made


def plan(person: Person, amount: str, run: str, **more: Any) -> str:
    body = build_preflight(
        run_id=run, cost_estimate=None, estimated_monthly_delta_usd=amount, **more
    )
    answer = Api().post("gate/terraform/preflight", body, key=person.key).json()
    return str(answer["approval_request_id"])


def ask_by(key: str, reference: str = "x", environment: str = "prod") -> str:
    body = {
        "project_id": "shop",
        "environment": environment,
        "resource_reference": reference,
        "estimated_monthly_delta_usd": "300.00",
    }
    return str(Api().post("gate/terraform", body, key=key).json()["approval_request_id"])


def as_person(person: Person, *, after: timedelta = timedelta()) -> Actor:
    now = system_actor(person.tenant_id).at
    return Actor(person.tenant_id, f"user:{person.user_id}", None, now + after)


# Terms that change while a question waits


@pytest.mark.parametrize("amount", ["300.00", "200.00", "400.00"])
def test_a_question_joins_no_terms_laxer_than_its_own_policy_s(shop: Shop, amount: str) -> None:
    """Asked under a lax policy and once more under a strict one: the strict one binds."""
    world = shop.world
    approval_id = plan(world.member, "300.00", "r1")
    shop.publish(thresholds=ASKS, approvals={"nonprod": {"required": 2}})
    assert plan(world.member, amount, "r2") == approval_id
    assert show(world.owner, approval_id)["approvals_required"] == 2
    assert approve(world.owner, approval_id)["status"] == "pending"
    assert approve(world.admin, approval_id)["status"] == "approved"
    check_books(world)


def test_a_larger_question_makes_no_terms_laxer(tenant: World) -> None:
    """One cent more, and without the risk that its caller had declared before."""
    rule = {
        "id": "critical",
        "risk_levels": ["critical"],
        "reviewer_groups_all": ["finance"],
        "reviewer_roles": ["owner"],
    }
    shop = open_shop(tenant, approval_routing_rules=[rule])
    shop.budget("5000.00")
    put_group(tenant, "finance", admit(tenant, "owner", "fin"))
    approval_id = plan(tenant.member, "300.00", "r1", metadata={"risk_level": "critical"})
    assert plan(tenant.member, "300.01", "r2") == approval_id
    document = show(tenant.member, approval_id)
    assert document["estimated_monthly_delta_usd"] == "300.0100"
    for person, code in (
        (tenant.admin, "reviewer_role_missing"),
        (tenant.owner, "reviewer_group_missing"),
    ):
        assert refusal(act(person, approval_id, "approve")) == (403, code)


# People who change while a question waits


@pytest.mark.parametrize("verb", ["approve", "deny"])
@pytest.mark.parametrize("loss", ["role", "membership", "account"])
def test_what_was_taken_away_after_signing_in_judges_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, verb: str, loss: str
) -> None:
    """Between who they were found to be and the verdict, as when a lock is waited for."""
    world, ada = shop.world, admit(shop.world, "admin", "ada")
    approval_id = str(shop.ask("300.00")["approval_request_id"])
    system = system_actor(world.id)

    def take_away(principal: Any) -> None:
        if loss == "role":
            change_role(actor=system, person_id=principal.person_id, role="member")
        elif loss == "membership":
            remove_member(actor=system, person_id=principal.person_id)
        else:
            User.objects.filter(pk=principal.person_id).update(is_active=False)

    module = approving if verb == "approve" else refusing
    monkeypatch.setattr(module, "require_scope", take_away)
    refused = act(ada, approval_id, verb, reason="x")
    assert refusal(refused) == (403, "reviewer_role_missing")
    assert show(world.owner, approval_id)["status"] == "pending"


def test_who_left_a_group_stands_for_it_no_more(tenant: World) -> None:
    shop = open_shop(tenant, approval_routing_rules=[BOTH])
    shop.budget("5000.00")
    frida, piet, nora = (admit(tenant, "member", name) for name in ("frida", "piet", "nora"))
    put_group(tenant, "finance", frida, nora)
    put_group(tenant, "platform", piet)
    for person in (frida, piet, nora):
        permit(tenant, person, "enforcement.approve.prod")
    approval_id = str(shop.ask("300.00", environment="prod")["approval_request_id"])
    approve(frida, approval_id)
    with reading(tenant.id):
        finance = ReviewerGroup.objects.get(name="finance")
    reviewing.set_group_members(
        actor=system_actor(tenant.id), group_id=finance.pk, person_ids=[nora.user_id]
    )
    answer = approve(piet, approval_id)
    assert (answer["status"], answer["approvals_given"]) == ("pending", 1)
    assert approve(nora, approval_id)["status"] == "approved"
    check_books(tenant)


# Asking in somebody else's name, and approving as oneself


def issue_for(giver: Person, person: Person, **terms: Any) -> tuple[str, str]:
    body = {"name": "pipeline", "role": "member", "person_id": person.user_id, **terms}
    made = Api().post("api-keys", body, key=giver.key)
    assert made.status_code == 201, made.content
    return made.json()["id"], made.json()["key"]


def test_who_was_shown_a_key_judges_nothing_that_it_asks(shop: Shop) -> None:
    world, other = shop.world, admit(shop.world, "owner", "olga")
    _, text = issue_for(world.owner, world.member)
    approval_id = ask_by(text)
    for verb in ("approve", "deny"):
        assert refusal(act(world.owner, approval_id, verb, reason="x")) == HELD
    assert refusal(act(world.owner, approval_id, "withdraw")) == HELD
    assert queue_of(world.owner) == []
    names = {one["username"] for one in show(world.member, approval_id)["eligible_reviewers"]}
    assert names == {other.username}
    own = User.objects.get(pk=world.owner.user_id)
    console = Client()
    console.force_login(own)
    page = reverse("admin:governance_approval_approve", args=[approval_id])
    assert console.post(page, {"reason": "x"}).status_code in {403, 409}
    assert show(world.member, approval_id)["status"] == "pending"
    assert approve(other, approval_id)["status"] == "approved"
    check_books(world)


def test_where_requesters_may_review_so_may_who_was_shown_their_key(shop: Shop) -> None:
    _, text = issue_for(shop.world.owner, shop.world.member)
    assert approve(shop.world.owner, ask_by(text, environment="dev"))["status"] == "approved"


def test_a_chain_of_keys_hides_nobody(shop: Shop) -> None:
    """A key of another owner's, issued by the one who has its text, issues a third one."""
    world, olga = shop.world, admit(shop.world, "owner", "olga")
    _, second = issue_for(world.owner, olga, role="owner")
    body = {"name": "third", "role": "member", "person_id": world.member.user_id}
    third = Api().post("api-keys", body, key=second).json()["key"]
    approval_id = ask_by(third)
    for person in (world.owner, olga):
        assert refusal(act(person, approval_id, "approve")) == HELD


def test_who_takes_a_key_over_is_the_only_one_who_was_shown_it(shop: Shop) -> None:
    world = shop.world
    key_id, text = issue_for(world.owner, world.member)
    asked_before = ask_by(text, "before")
    member = Client()
    member.force_login(User.objects.get(pk=world.member.user_id))
    listed = member.get(reverse("admin:governance_apikey_changelist")).content.decode()
    assert "Your API keys" in listed
    assert "pipeline" in listed
    assert "owner key" not in listed
    assert member.post(reverse("admin:governance_apikey_rotate", args=[key_id])).status_code == 200
    assert refusal(act(world.owner, asked_before, "approve")) == HELD
    assert Api().get("approvals/queue", key=text).status_code == 401, "the old text stopped"
    foreign = reverse("admin:governance_apikey_rotate", args=[world.owner.key_id])
    assert member.post(foreign).status_code == 404
    assert member.post(reverse("admin:governance_apikey_issue"), {}).status_code == 403


def test_hands_are_those_of_the_secret_that_was_in_force(shop: Shop) -> None:
    world = shop.world
    owner, member = world.owner.user_id, world.member.user_id
    begin, later, hour = as_person(world.owner), as_person(world.member, after=HOUR), HOUR
    key, _ = issue_api_key(
        actor=begin, key_id=new_id(), random_bytes=bytes(44), name="k", role="member",
        person_id=member,
    )  # fmt: skip
    rotate_api_key(actor=later, key_id=key.pk, random_bytes=bytes(43) + b"x")
    task, _ = create_integration(
        actor=begin, integration_id=new_id(), random_bytes=bytes(32), kind="cluster", name="c",
        person_id=member,
    )  # fmt: skip
    rotate_secret(actor=system_actor(world.id), integration_id=task.pk, random_bytes=bytes(32))
    terms = {
        "issuer": "https://ci.test",
        "project_id": "shop",
        "person_id": member,
        "conditions": {"repository_id": "1"},
    }
    uploaded = register_issuer(
        actor=begin, issuer_id=new_id(), name="up", jwks=json.loads(a_key_set()), **terms
    )
    found = register_issuer(
        actor=begin, issuer_id=new_id(), name="ci", **terms | {"issuer": GITHUB}
    )
    expected = {
        (f"key:{key.pk}", timedelta()): {owner},
        (f"key:{key.pk}", hour - timedelta(seconds=30)): {owner, member},
        (f"key:{key.pk}", hour + timedelta(seconds=30)): {owner, member},
        (f"key:{key.pk}", hour * 2): {member},
        (f"integration:{task.pk}", timedelta()): {owner},
        (f"integration:{task.pk}", hour): set(),
        (f"workload:{uploaded.pk}", hour): {owner},
        (f"workload:{found.pk}", hour): set(),
        (f"user:{member}", hour): set(),
        ("system:make-run", hour): set(),
    }
    uses = {
        Use(name, begin.at + after, begin.at + after): who
        for (name, after), who in expected.items()
    }
    with reading(world.id):
        assert find_hands(world.id, uses) == uses
