"""People and reviewer groups in the console: who may review what, and only owners say so."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from governance.admin import member_acts
from governance.identity import reviewing
from governance.models import ApprovalPermission, AuditEntry, Membership, ReviewerGroup, User
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World, system_actor
from tests.integration.test_admin import EVIL
from tests.reviews import admit, open_shop
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

RULE = {
    "id": "both",
    "environment": "prod",
    "reviewer_roles": ["owner", "member"],
    "reviewer_groups_all": ["finance", "platform"],
    "required": 2,
}


def signed_in(person: Person, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(User.objects.get(pk=person.user_id))
    return client


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


def person_url(person: Person, act: str = "change") -> str:
    return reverse(f"admin:governance_membership_{act}", args=[person.user_id])


def group_url(group: ReviewerGroup, act: str = "change") -> str:
    return reverse(f"admin:governance_reviewergroup_{act}", args=[group.pk])


def make_group(world: World, name: str, *people: Person) -> ReviewerGroup:
    group = reviewing.create_group(actor=system_actor(world.id), group_id=new_id(), name=name)
    reviewing.set_group_members(
        actor=system_actor(world.id),
        group_id=group.pk,
        person_ids=[person.user_id for person in people],
    )
    return group


def state_of(world: World) -> tuple[Any, ...]:
    with reading(world.id):
        return (
            sorted(Membership.objects.values_list("user_id", "role")),
            sorted(ApprovalPermission.objects.values_list("user_id", "permission", "source")),
            sorted(
                (group.name, reviewing.find_members(group)) for group in ReviewerGroup.objects.all()
            ),
            AuditEntry.objects.count(),
        )


def actions_of(world: World) -> list[str]:
    with reading(world.id):
        rows = AuditEntry.objects.order_by("pk").exclude(actor="system:tests")
        return list(rows.values_list("action", flat=True))


def acts_of(world: World, group: ReviewerGroup) -> dict[str, tuple[str, dict[str, Any]]]:
    new = {"username": f"new@{world.slug}.test", "role": "member"}
    return {
        "admit": (reverse("admin:governance_membership_admit"), new),
        "role": (person_url(world.member, "role"), {"role": "owner"}),
        "permissions": (
            person_url(world.admin, "permissions"),
            {"permissions": "enforcement.approve.prod"},
        ),
        "remove": (person_url(world.member, "remove"), {}),
        "create": (reverse("admin:governance_reviewergroup_create"), {"name": "security"}),
        "members": (group_url(group, "members"), {"person_ids": str(world.admin.user_id)}),
        "delete": (group_url(group, "delete"), {}),
    }


def test_only_owners_say_who_reviews_and_only_by_post(tenant: World, other_tenant: World) -> None:
    """An admin who could would give themselves the permission for prod."""
    acts = acts_of(tenant, make_group(tenant, "finance", tenant.owner))
    before = state_of(tenant)
    owner = signed_in(tenant.owner)
    for name, (url, fields) in acts.items():
        for person in (tenant.admin, tenant.member):
            assert signed_in(person).get(url).status_code == 403, name
            assert signed_in(person).post(url, fields).status_code == 403, name
        assert owner.get(url, fields).status_code == 200, name
        assert owner.put(url).status_code == 405, name
        strict = signed_in(tenant.owner, enforce_csrf_checks=True)
        assert strict.post(url, fields).status_code == 403, name
        assert Client().post(url, fields)["Location"].startswith(reverse("admin:login")), name
    assert state_of(tenant) == before
    theirs = before_theirs = state_of(other_tenant)
    foreign = acts_of(other_tenant, make_group(other_tenant, "finance"))
    before_theirs = state_of(other_tenant)
    for name in ("role", "permissions", "remove", "members", "delete"):
        url, fields = foreign[name]
        assert owner.post(url, fields).status_code == 404, name
    assert state_of(other_tenant) == before_theirs != theirs
    group = make_group(tenant, "platform")
    people = {"person_ids": str(other_tenant.owner.user_id)}
    assert owner.post(group_url(group, "members"), people).status_code == 422


def test_an_owner_grants_and_takes_back_and_each_is_audited(tenant: World) -> None:
    owner = signed_in(tenant.owner)
    url, fields = acts_of(tenant, make_group(tenant, "finance"))["admit"]
    assert owner.post(url, fields).status_code == 302
    new = User.objects.get(username=fields["username"])
    assert owner.post(url, fields).status_code == 409
    permissions = person_url(tenant.member, "permissions")
    given = {"permissions": ["enforcement.approve.prod", "enforcement.approve.nonprod"]}
    assert owner.post(permissions, given).status_code == 302
    assert owner.post(permissions, {"permissions": "everything"}).status_code == 422
    with reading(tenant.id):
        assert reviewing.find_permissions(tenant.id, tenant.member.user_id) == sorted(
            given["permissions"]
        )
    assert 'value="enforcement.approve.prod" id="id_permissions_1" checked' in text_of(
        owner.get(permissions)
    )
    assert owner.post(permissions, {}).status_code == 302
    assert owner.post(person_url(tenant.member, "role"), {"role": "admin"}).status_code == 302
    created = owner.post(reverse("admin:governance_reviewergroup_create"), {"name": "platform"})
    with reading(tenant.id):
        group = ReviewerGroup.objects.get(name="platform")
    assert created["Location"] == group_url(group)
    form = text_of(owner.get(group_url(group, "members")))
    assert '<fieldset class="vx-field vx-field--choices"' in form
    assert "<legend>People" in form
    both = {"person_ids": [str(tenant.member.user_id), str(new.pk)]}
    assert owner.post(group_url(group, "members"), both).status_code == 302
    assert owner.post(group_url(group, "members"), {"person_ids": str(new.pk)}).status_code == 302
    with reading(tenant.id):
        assert reviewing.find_members(group) == [new.pk]
    twice = owner.post(reverse("admin:governance_reviewergroup_create"), {"name": "platform"})
    assert (twice.status_code, "of this name" in text_of(twice)) == (409, True)
    removal = reverse("admin:governance_membership_remove", args=[new.pk])
    assert owner.post(removal).status_code == 302
    assert owner.post(removal).status_code == 404
    assert owner.post(group_url(group, "delete")).status_code == 302
    last = owner.post(person_url(tenant.owner, "role"), {"role": "member"})
    assert (last.status_code, "needs an owner" in text_of(last)) == (409, True)
    assert actions_of(tenant) == [
        "member.add",
        "member.set-approval-permissions",
        "member.set-approval-permissions",
        "member.change-role",
        "reviewer-group.create",
        "reviewer-group.set-members",
        "reviewer-group.set-members",
        "member.remove",
        "reviewer-group.delete",
    ]


def fields_of(page: HttpResponse) -> dict[str, Any]:
    """Return what the page's form would send if nothing were changed."""
    form = page.context_data["form"]  # type: ignore[attr-defined]  # a template's response
    return {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}


def test_an_edit_of_what_somebody_else_changed_meanwhile_is_refused(tenant: World) -> None:
    """Two owners open the same form; the second to press the button overwrites nothing."""
    group = make_group(tenant, "finance", tenant.owner)
    first, second = (signed_in(tenant.owner) for _ in range(2))
    budget = Shop(tenant).budget("100.00")
    for url, change in (
        (
            group_url(group, "members"),
            {"person_ids": [tenant.owner.user_id, tenant.member.user_id]},
        ),
        (person_url(tenant.admin, "permissions"), {"permissions": ["enforcement.approve.prod"]}),
        (
            reverse("admin:billing_account_change-budget", args=[budget]),
            {"monthly_limit_usd": "200.00"},
        ),
    ):
        mine, theirs = (fields_of(client.get(url)) for client in (first, second))
        assert first.post(url, mine | change).status_code == 302, url
        before = state_of(tenant)
        refused = second.post(url, theirs)
        assert (refused.status_code, "Somebody changed this" in text_of(refused)) == (409, True)
        assert state_of(tenant) == before
        again = fields_of(second.get(url))
        assert second.post(url, again).status_code == 302


def test_a_long_list_of_people_drops_nobody_from_a_group(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_acts, "_OFFERED_PEOPLE", 1)
    group = make_group(tenant, "finance", tenant.member, tenant.admin)
    owner, url = signed_in(tenant.owner), group_url(group, "members")
    assert owner.post(url, fields_of(owner.get(url))).status_code == 302
    with reading(tenant.id):
        assert reviewing.find_members(group) == sorted(
            [tenant.member.user_id, tenant.admin.user_id]
        )


def test_a_person_s_page_says_what_they_may_review_and_why_not(tenant: World) -> None:
    open_shop(tenant, approval_routing_rules=[RULE])
    make_group(tenant, "finance", tenant.member)
    reviewing.set_permissions(
        actor=system_actor(tenant.id),
        person_id=tenant.member.user_id,
        permissions=["enforcement.approve.prod"],
    )
    admin = signed_in(tenant.admin)
    page = text_of(admin.get(person_url(tenant.member)))
    for said in (
        "prod: both",
        "yes, as 2 of owner, member; one of each of finance, platform",
        "prod: no rule matches",
        "no: it asks for another role",
        "enforcement.approve.prod (by owner)",
    ):
        assert said in page, said
    assert "Set permissions" not in page, "an admin may look"
    assert "no: it asks for people of other groups" in text_of(admin.get(person_url(tenant.owner)))
    assert "no: the permission is missing" in text_of(admin.get(person_url(tenant.admin)))
    listed = text_of(admin.get(reverse("admin:governance_membership_changelist")))
    assert tenant.member.username in listed
    assert "finance" in listed
    found = admin.get(reverse("admin:governance_membership_changelist") + "?q=MEMBER&role=member")
    assert tenant.member.username in text_of(found)
    assert tenant.owner.username not in text_of(found)
    User.objects.filter(pk=tenant.member.user_id).update(is_active=False)
    assert "no: deactivated" in text_of(admin.get(person_url(tenant.member)))


def test_a_group_s_page_says_who_is_in_it_and_what_demands_it(tenant: World) -> None:
    open_shop(tenant, approval_routing_rules=[RULE])
    group, idle = make_group(tenant, "finance", tenant.member), make_group(tenant, EVIL)
    owner = signed_in(tenant.owner)
    page = text_of(owner.get(group_url(group)))
    assert tenant.member.username in page
    assert "prod: both" in page
    page = text_of(owner.get(group_url(idle)))
    assert "Nobody." in page
    assert "No rule of the policy in force." in page
    listed = text_of(owner.get(reverse("admin:governance_reviewergroup_changelist")))
    for text in (page, listed, text_of(owner.get(group_url(idle, "delete")))):
        assert "<script>alert" not in text


def test_lists_of_people_take_a_bounded_number_of_statements(tenant: World) -> None:
    open_shop(tenant, approval_routing_rules=[RULE])
    make_group(tenant, "finance", tenant.member)
    owner = signed_in(tenant.owner)
    owner.get(reverse("admin:index"))
    lists = [
        reverse(f"admin:governance_{name}_changelist") for name in ("membership", "reviewergroup")
    ]
    counts = []
    for number in range(2):
        for url in lists:
            with CaptureQueriesContext(connection) as captured:
                assert owner.get(url).status_code == 200
            counts.append(len(captured.captured_queries))
        if number == 0:
            people = [admit(tenant, "member", f"p{one}") for one in range(4)]
            for one in range(4):
                make_group(tenant, f"group {one}", *people)
    assert counts[2:] == counts[:2]
    assert max(counts) <= 15
