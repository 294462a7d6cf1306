"""Approvals in the console: by POST with the page's token, on what the page showed, by who may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from enforcement.review.judging import mark_of
from governance.identity.domain import MEMBER
from governance.models import Approval, Review, User
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World
from tests.reviews import act, admit, check_books, open_shop, refusal, show
from valdrix.kernel.db import reading, transaction

NOTE = {"reason": "because"}


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Give a tenant where a change from 100 dollars on needs an approval, and a budget."""
    made = open_shop(tenant)
    made.budget("1000.00")
    return made


def signed_in(person: Person, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(User.objects.get(pk=person.user_id))
    return client


def with_factor(client: Client) -> Client:
    session = client.session
    session["second_factor_at"] = datetime.now(UTC).isoformat()
    session.save()
    return client


def url_of(approval_id: str, act_name: str | None = None) -> str:
    name = f"admin:governance_approval_{act_name or 'change'}"
    return reverse(name, args=[approval_id])


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


def status_of(world: World, approval_id: str) -> str:
    with reading(world.id):
        return Approval.objects.get(pk=approval_id).status


def ask(shop: Shop, amount: str | None = "300.00", **members: Any) -> str:
    return str(shop.ask(amount, **members)["approval_request_id"])


def shown(world: World, approval_id: str, **fields: str) -> dict[str, str]:
    """Return the fields of a form that shows an approval as it is now."""
    with reading(world.id):
        return {"shown": mark_of(Approval.objects.get(pk=approval_id)), **fields}


def several_url(*approval_ids: str) -> str:
    query = "&".join(f"id={one}" for one in approval_ids)
    return f"{reverse('admin:governance_approval_deny-several')}?{query}"


# By POST, with the token, by who may


@pytest.mark.parametrize("name", ["approve", "deny", "withdraw"])
def test_no_verdict_is_given_by_get_or_without_the_page_s_token(shop: Shop, name: str) -> None:
    approval_id = ask(shop)
    url = url_of(approval_id, name)
    owner = signed_in(shop.world.owner)
    assert owner.get(url, NOTE).status_code == 200
    assert owner.head(url).status_code == 200
    assert owner.put(url).status_code == 405
    strict = signed_in(shop.world.owner, enforce_csrf_checks=True)
    assert strict.post(url, NOTE).status_code == 403
    assert Client().post(url, NOTE)["Location"].startswith(reverse("admin:login"))
    assert status_of(shop.world, approval_id) == "pending"
    with reading(shop.world.id):
        assert not Review.objects.exists()


def test_nobody_approves_their_own_question(shop: Shop) -> None:
    shop.publish(
        thresholds={"prod": {"require_approval_from_usd": "100.00"}},
        approvals={"prod": {"separate_requester": True}},
    )
    body = {
        "project_id": "shop",
        "environment": "prod",
        "resource_reference": "module.web",
        "estimated_monthly_delta_usd": "300.00",
    }
    asked = Api().post("gate/terraform", body, key=shop.world.owner.key).json()
    approval_id = str(asked["approval_request_id"])
    owner = signed_in(shop.world.owner)
    page = text_of(owner.get(url_of(approval_id)))
    assert "You asked for this; somebody else has to judge it." in page
    assert url_of(approval_id, "approve") not in page
    response = owner.post(url_of(approval_id, "approve"), NOTE)
    assert response.status_code == 403
    assert "You asked for this change" in text_of(response)
    assert owner.post(url_of(approval_id, "deny"), NOTE).status_code == 403
    assert owner.post(several_url(approval_id), NOTE).status_code == 409
    assert refusal(act(shop.world.owner, approval_id, "approve"))[0] == 403
    assert status_of(shop.world, approval_id) == "pending"


def test_another_tenants_approval_does_not_exist(shop: Shop, other_tenant: World) -> None:
    approval_id = ask(shop)
    client = signed_in(other_tenant.owner)
    for name in (None, "approve", "deny", "withdraw"):
        assert client.get(url_of(approval_id, name)).status_code == 404
        if name:
            assert client.post(url_of(approval_id, name), NOTE).status_code == 404
    assert client.post(several_url(approval_id), NOTE).status_code == 409
    assert status_of(shop.world, approval_id) == "pending"


def test_a_member_sees_what_a_rule_lets_them_judge_and_nothing_else(shop: Shop) -> None:
    approval_id = ask(shop)
    member = admit(shop.world, MEMBER, "outsider")
    client = signed_in(member)
    queue = reverse("admin:governance_approval_changelist")
    assert url_of(approval_id) not in text_of(client.get(queue))
    assert client.get(url_of(approval_id)).status_code == 404
    assert client.post(url_of(approval_id, "approve"), NOTE).status_code == 404
    mine = text_of(signed_in(shop.world.member).get(f"{queue}?view=mine"))
    assert url_of(approval_id) in mine
    for view in ("all", "nonsense"):
        assert url_of(approval_id) not in text_of(client.get(f"{queue}?view={view}"))


# What the page showed


def test_a_page_whose_amount_moved_decides_nothing(shop: Shop) -> None:
    first = shop.ask("300.00", stage="post_plan", run_id="r1", path="gate/terraform/preflight")
    approval_id = str(first["approval_request_id"])
    page = shown(shop.world, approval_id)
    assert page["shown"] in text_of(signed_in(shop.world.owner).get(url_of(approval_id)))
    raised = shop.ask(
        "400.00", stage="pre_apply", run_id="r1", path="gate/terraform/preflight", key="more"
    )
    assert raised["approval_request_id"] != approval_id, "a declared change is not joined"
    with transaction(shop.world.id):
        Approval.objects.filter(pk=approval_id).update(monthly_delta_usd="400.0000")
    owner = signed_in(shop.world.owner)
    for fields in (page | NOTE, NOTE):
        for name in ("approve", "deny"):
            response = owner.post(url_of(approval_id, name), fields)
            assert response.status_code == 409
            assert "it is about 400.0000 USD a month now" in text_of(response)
            assert "Nothing was changed" in text_of(response)
    assert status_of(shop.world, approval_id) == "pending"


def test_a_page_of_something_decided_meanwhile_says_so(shop: Shop) -> None:
    approval_id = ask(shop)
    owner = signed_in(shop.world.owner)
    page = shown(shop.world, approval_id, **NOTE)
    assert owner.post(url_of(approval_id, "deny"), page).status_code == 302
    for name, fields in (("approve", {}), ("deny", NOTE), ("withdraw", {})):
        response = owner.post(url_of(approval_id, name), fields)
        assert response.status_code == 409, name
        assert "It was denied." in text_of(response)
        assert "Nothing was changed" in text_of(response)
    check_books(shop.world)


def test_an_expired_approval_cannot_be_given(shop: Shop) -> None:
    approval_id = ask(shop)
    owner = signed_in(shop.world.owner)
    owner.get(url_of(approval_id))
    with time_machine.travel(datetime.now(UTC) + timedelta(days=2)):
        owner = signed_in(shop.world.owner)
        page = text_of(owner.get(url_of(approval_id)))
        assert "Your decision" not in page
        response = owner.post(url_of(approval_id, "approve"), NOTE)
        assert response.status_code == 409
        assert "Its time is over" in text_of(response)
    assert status_of(shop.world, approval_id) == "pending"


# What must be said


def test_a_denial_needs_a_reason(shop: Shop) -> None:
    approval_id = ask(shop)
    fields = shown(shop.world, approval_id, reason="  ")
    response = signed_in(shop.world.owner).post(url_of(approval_id, "deny"), fields)
    assert response.status_code == 422
    assert "is required" in text_of(response)
    assert status_of(shop.world, approval_id) == "pending"


def test_an_unknown_cost_is_approved_up_to_an_amount_and_with_a_reason(shop: Shop) -> None:
    shop.publish(
        thresholds={"prod": {"require_approval_from_usd": "100.00"}},
        unknown_cost={"prod": "require_approval", "nonprod": "require_approval"},
    )
    approval_id = ask(shop, None)
    owner = signed_in(shop.world.owner)
    page = text_of(owner.get(url_of(approval_id)))
    assert "An unknown amount a month" in page
    assert 'name="max_monthly_delta_usd"' in page
    url, page = url_of(approval_id, "approve"), shown(shop.world, approval_id)
    assert owner.post(url, page | NOTE).status_code == 422
    assert owner.post(url, page | {"max_monthly_delta_usd": "50"}).status_code == 422
    for wrong in ("-1", "1e3", "many"):
        assert owner.post(url, page | NOTE | {"max_monthly_delta_usd": wrong}).status_code == 422
    assert status_of(shop.world, approval_id) == "pending"
    assert owner.post(url, page | NOTE | {"max_monthly_delta_usd": "50"}).status_code == 302
    assert show(shop.world.member, approval_id)["status"] == "approved"


def test_a_second_factor_is_asked_for_where_the_policy_wants_it(shop: Shop) -> None:
    shop.publish(
        thresholds={"prod": {"require_approval_from_usd": "100.00"}},
        approvals={"prod": {"require_second_factor": True}},
    )
    approval_id = ask(shop, environment="prod")
    owner = signed_in(shop.world.owner)
    assert "The policy wants a second factor" in text_of(owner.get(url_of(approval_id)))
    page = shown(shop.world, approval_id, **NOTE)
    refused = owner.post(url_of(approval_id, "approve"), page)
    assert refused.status_code == 403
    assert refusal(act(shop.world.owner, approval_id, "approve", reason="x")) == (
        403,
        "second_factor_required",
    )
    assert status_of(shop.world, approval_id) == "pending"
    assert with_factor(owner).post(url_of(approval_id, "approve"), page).status_code == 302
    assert status_of(shop.world, approval_id) == "approved"


@pytest.mark.parametrize("name", ["approve", "deny", "withdraw"])
def test_a_form_that_stands_alone_says_what_it_is_about(shop: Shop, name: str) -> None:
    """Where a refusal leads to, there is no page around the form."""
    approval_id = ask(shop, resource_reference="module.web")
    page = text_of(signed_in(shop.world.owner).get(url_of(approval_id, name)))
    for said in ("What it is about", "shop / ", "module.web", "+300.00", "0 of 1"):
        assert said in page, said


# Withdrawing, and several at once


def test_who_asked_withdraws_and_asks_again(shop: Shop) -> None:
    approval_id = ask(shop)
    client = signed_in(shop.world.member)
    page = text_of(client.get(url_of(approval_id)))
    assert url_of(approval_id, "withdraw") in page
    done = client.post(url_of(approval_id, "withdraw"), NOTE, follow=True)
    assert "Withdrawn. What it held was given back." in text_of(done)
    assert status_of(shop.world, approval_id) == "withdrawn"
    check_books(shop.world)


def test_several_are_denied_with_one_reason(shop: Shop) -> None:
    ids = [ask(shop, resource_reference=f"r{number}") for number in range(3)]
    owner = signed_in(shop.world.owner)
    page = owner.get(several_url(*ids[:2]))
    assert "Deny 2 changes" in text_of(page)
    assert all(status_of(shop.world, one) == "pending" for one in ids)
    marks = [f"{one} {shown(shop.world, one)['shown']}" for one in ids]
    assert all(one in text_of(page) for one in marks[:2])
    said = {"reason": "not now", "shown": marks}
    assert owner.post(several_url(*ids[:2]), said | {"reason": ""}).status_code == 422
    unseen = owner.post(several_url(*ids[:2]), {"reason": "not now"})
    assert (unseen.status_code, "This moved" in text_of(unseen)) == (409, True)
    done = owner.post(several_url(*ids[:2]), said, follow=True)
    assert "2 denied." in text_of(done)
    assert [status_of(shop.world, one) for one in ids] == ["denied", "denied", "pending"]
    again = owner.post(several_url(ids[0], ids[2]), said, follow=True)
    assert "1 denied. 1 were not" in text_of(again)
    check_books(shop.world)


@pytest.mark.parametrize("query", ["", "?id=x", "?id=" + "&id=".join(["1"] * 200)])
def test_a_choice_that_cannot_be_read_denies_nothing(shop: Shop, query: str) -> None:
    url = reverse("admin:governance_approval_deny-several") + query
    owner = signed_in(shop.world.owner)
    assert owner.get(url).status_code == 200
    assert owner.post(url, NOTE).status_code in {409, 422}


# The page


def test_the_page_shows_all_that_is_needed_to_judge(shop: Shop) -> None:
    approval_id = ask(shop)
    text = text_of(signed_in(shop.world.owner).get(url_of(approval_id)))
    for said in (
        "+300.00 USD a month for shop",
        f"{shop.world.member.username}, by the key “member key”",
        "shop before this change: 0.00 of 1,000.00 USD taken",
        "shop after this change: 300.00 of 1,000.00 USD taken",
        "1,000.00 left",
        "700.00 left",
        "Entitlement waterfall, when it was asked",
        shop.world.owner.username,
    ):
        assert said in text, said


def test_the_page_takes_a_bounded_number_of_statements(shop: Shop) -> None:
    ids = [ask(shop, resource_reference=f"r{number}") for number in range(6)]
    owner = signed_in(shop.world.owner)
    owner.get(reverse("admin:index"))
    with CaptureQueriesContext(connection) as page:
        owner.get(url_of(ids[0]))
    assert len(page.captured_queries) <= 32
    with CaptureQueriesContext(connection) as queue:
        owner.get(reverse("admin:governance_approval_changelist"))
    assert len(queue.captured_queries) <= 26
