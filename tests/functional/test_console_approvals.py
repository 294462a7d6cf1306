"""People decide, in a real browser: what a pipeline asked, who may judge it, and what is held."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from enforcement.notifications.links import Place, link_to
from governance.identity.domain import MEMBER
from governance.models import Approval, ReviewerGroup, ReviewerGroupMember
from tests.browsing import WIDTHS, find_unlabelled, give_password, is_too_wide, sign_in, sign_out
from tests.client import Api
from tests.factories.tenants import Person, World
from tests.reviews import admit, check_books, open_shop, show
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

EVIL = "<script>alert(1)</script>"
TWO_GROUPS = {
    "id": "both",
    "environment": "prod",
    "reviewer_roles": ["owner", "member"],
    "reviewer_groups_all": ["finance", "platform"],
    "required": 2,
}


def list_url(view: str = "") -> str:
    return reverse("admin:governance_approval_changelist") + (f"?view={view}" if view else "")


def page_url(approval_id: str) -> str:
    return reverse("admin:governance_approval_change", args=[approval_id])


def put_in_group(world: World, person: Person, name: str) -> None:
    now = datetime.now(UTC)
    with transaction(world.id):
        group, _ = ReviewerGroup.objects.get_or_create(
            tenant_id=world.id,
            name=name,
            defaults={"id": new_id(), "created_by": "system:tests", "created_at": now},
        )
        ReviewerGroupMember.objects.create(
            tenant_id=world.id, group=group, user_id=person.user_id, added_at=now
        )


def status_of(world: World, approval_id: str) -> str:
    with reading(world.id):
        return Approval.objects.get(pk=approval_id).status


@pytest.mark.parametrize("width", list(WIDTHS))
def test_from_the_question_to_the_single_use_of_its_token(
    tenant: World, address: str, browse: Callable[..., None], width: str
) -> None:
    shop = open_shop(tenant)
    budget = shop.budget("1000.00")
    asked = shop.ask("300.00")
    approval_id = asked["approval_request_id"]
    give_password(tenant.owner)

    def review(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        assert not is_too_wide(page)
        page.get_by_role("link", name="1 waiting for you").click()
        page.wait_for_load_state("domcontentloaded")
        assert not is_too_wide(page)
        page.locator("#result_list tbody a").first.click()
        page.get_by_role("heading", name="+300.00 USD a month for").wait_for()
        assert not is_too_wide(page)
        assert find_unlabelled(page) == []
        for heading in (
            "Your decision",
            "What would change",
            "Budget before and after",
            "Who may decide",
            "Entitlement waterfall, when it was asked",
        ):
            assert page.get_by_role("heading", name=heading, exact=True).is_visible(), heading
        assert page.get_by_role("img", name="after this change: 300.00 of 1,000.00").is_visible()
        page.get_by_role("button", name="Approve", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_text("Approved, up to 300.00 USD a month").wait_for()
        assert page.get_by_role("button", name="Approve", exact=True).count() == 0

    browse(review, width)
    assert status_of(tenant, approval_id) == "approved"
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    _spend(tenant, asked, approval_id)
    check_books(tenant)


def _spend(world: World, asked: dict[str, Any], approval_id: str) -> None:
    """Claim the token and use it, once."""
    claimed = Api().post(f"approvals/{approval_id}/token", {}, key=world.key)
    assert claimed.status_code == 200, claimed.content
    body = {
        "approval_token": claimed.json()["approval_token"],
        "monthly_delta_usd": "300.00",
        "expected_request_fingerprint": asked["request_fingerprint"],
    }
    first = Api().post("approvals/consume", body, key=world.key)
    assert (first.status_code, first.json()["status"]) == (200, "consumed")
    again = Api().post("approvals/consume", body, key=world.key)
    assert (again.status_code, again.json()["code"]) == (409, "approval_token_replayed")


def test_a_denial_gives_the_reservation_back(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    shop = open_shop(tenant)
    budget = shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    give_password(tenant.owner)

    def review(page: Any) -> None:
        sign_in(page, address, tenant.owner.username, to=page_url(approval_id))
        form = page.get_by_role("form", name="Deny")
        form.get_by_role("button", name="Deny").click()
        assert page.url.endswith(page_url(approval_id)), "a denial without a reason is not sent"
        form.get_by_label("Why not").fill("Not this month.")
        form.get_by_role("button", name="Deny").click()
        page.get_by_text("Denied. What it held was given back.").wait_for()
        assert page.get_by_text("Not this month.").is_visible()

    browse(review, "desktop")
    assert status_of(tenant, approval_id) == "denied"
    assert shop.budget_state(budget)["pending_usd"] == 0
    check_books(tenant)


def test_two_people_of_two_groups_must_agree(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    shop = open_shop(
        tenant,
        approval_routing_rules=[
            {
                "id": "both",
                "reviewer_roles": ["owner", "admin", "member"],
                "reviewer_groups_all": ["finance", "platform"],
                "required": 2,
            }
        ],
    )
    shop.budget("1000.00")
    finance, platform = admit(tenant, "admin", "finance"), admit(tenant, "admin", "platform")
    other = admit(tenant, "admin", "other")
    put_in_group(tenant, finance, "finance")
    put_in_group(tenant, platform, "platform")
    approval_id = shop.ask("300.00", environment="dev")["approval_request_id"]
    for person in (finance, platform, other):
        give_password(person)

    def review(page: Any) -> None:
        sign_in(page, address, other.username, to=page_url(approval_id))
        assert page.get_by_text("Others judge this").is_visible()
        assert page.get_by_role("button", name="Approve", exact=True).count() == 0
        sign_out(page, address)
        sign_in(page, address, finance.username, to=page_url(approval_id))
        page.get_by_role("button", name="Approve", exact=True).click()
        page.get_by_text("Your approval counts. 1 more is needed.").wait_for()
        assert page.get_by_text("You have approved this already").is_visible()
        sign_out(page, address)
        sign_in(page, address, platform.username, to=page_url(approval_id))
        page.get_by_role("button", name="Approve", exact=True).click()
        page.get_by_text("Approved, up to 300.00 USD a month").wait_for()

    browse(review, "desktop")
    assert status_of(tenant, approval_id) == "approved"
    check_books(tenant)


def test_a_member_without_a_rule_sees_nothing(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    shop = open_shop(tenant)
    shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    outsider = admit(tenant, MEMBER, "outsider")
    give_password(outsider)

    def look(page: Any) -> None:
        sign_in(page, address, outsider.username)
        assert page.get_by_text("Nothing waits for you").is_visible()
        for view in ("", "mine", "all"):
            page.goto(address + list_url(view))
            assert page.locator("#result_list").count() == 0
        page.goto(address + page_url(approval_id))
        assert page.get_by_text("There is no such page in this tenant").is_visible()

    browse(look, "desktop", refused=(404,))


def test_a_link_of_a_message_leads_to_the_page_after_signing_in_and_decides_nothing(
    tenant: World, address: str, browse: Callable[..., None], settings: Any
) -> None:
    settings.PUBLIC_URL = address
    shop = open_shop(tenant)
    shop.budget("1000.00")
    approval_id = shop.ask("300.00")["approval_request_id"]
    give_password(tenant.owner)
    link = link_to(Place(tenant.id, "approval", approval_id))

    def follow(page: Any) -> None:
        sign_in(page, address, tenant.owner.username, to=link.removeprefix(address))
        page.get_by_role("heading", name="Your decision").wait_for()
        assert page.url == address + page_url(approval_id)

    browse(follow, "phone")
    assert status_of(tenant, approval_id) == "pending"


def test_stored_scripts_do_not_run(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    shop = open_shop(tenant)
    shop.budget("1000.00")
    asked = shop.ask(
        "300.00",
        resource_reference=f'"><img src=x onerror=alert(2)>{EVIL}',
        metadata={EVIL: f"</pre>{EVIL}"},
        team=EVIL,
    )
    approval_id = asked["approval_request_id"]
    give_password(tenant.owner)

    def review(page: Any) -> None:
        sign_in(page, address, tenant.owner.username, to=list_url())
        page.goto(address + page_url(approval_id))
        page.get_by_text("Metadata", exact=True).click()
        form = page.get_by_role("form", name="Deny")
        form.get_by_label("Why not").fill(EVIL)
        form.get_by_role("button", name="Deny").click()
        page.get_by_text("Denied.").wait_for()
        assert page.get_by_text(EVIL).count() > 0
        page.goto(address + reverse("admin:index"))

    browse(review, "desktop")
    assert show(tenant.member, approval_id)["status"] == "denied"


@pytest.mark.parametrize("width", list(WIDTHS))
def test_an_owner_says_who_reviews(
    tenant: World, address: str, browse: Callable[..., None], width: str
) -> None:
    """A group, who is in it, a permission; and the person's page says what follows."""
    open_shop(tenant, approval_routing_rules=[TWO_GROUPS])
    give_password(tenant.owner)

    def scenario(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        page.goto(address + reverse("admin:governance_reviewergroup_changelist"))
        page.get_by_role("link", name="New group").click()
        page.get_by_label("Name").fill("finance")
        page.get_by_role("button", name="New group").click()
        page.get_by_role("link", name="Say who is in it").click()
        assert find_unlabelled(page) == []
        assert not is_too_wide(page)
        page.get_by_label(f"{tenant.member.username} (member)").check()
        page.get_by_role("button", name="Say who is in it").click()
        page.get_by_role("heading", name="Rules that demand it").wait_for()
        assert page.get_by_text(tenant.member.username).is_visible()
        page.goto(address + reverse("admin:governance_membership_changelist"))
        assert not is_too_wide(page)
        page.get_by_role("link", name=tenant.member.username).click()
        page.get_by_role("link", name="Set permissions").click()
        page.get_by_label("enforcement.approve.prod").check()
        page.get_by_role("button", name="Set permissions").click()
        page.get_by_role("heading", name="May review").wait_for()
        assert page.get_by_text("yes, as 2 of owner, member").first.is_visible()
        assert not is_too_wide(page)

    browse(scenario, width)
