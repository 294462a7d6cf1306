"""The console: who sees what, of which tenant, and that nothing can be written through it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import DjangoDbBlocker

from billing.models import Account, QuotaCount, QuotaReservation, SettlementRecord
from billing.plans.domain import FREE
from billing.quotas.domain import LLM_TOKENS, QUOTAS, MeteredRequest
from billing.quotas.operations import Origin, reserve
from enforcement.models import Decision, Delivery, LedgerEntry, RunTask
from governance.identity.domain import MEMBER, OWNER
from governance.identity.operations import admit_member
from governance.incidents.operations import Sighting, open_incident, resolve_incident
from governance.models import (
    ApiKey,
    Approval,
    AuditEntry,
    Incident,
    Integration,
    Membership,
    PolicyVersion,
    ReviewerGroup,
    User,
    WorkloadIssuer,
)
from tests.client import Api
from tests.factories.rows import plant_rows
from tests.factories.tenants import Person, World, create_world, system_actor
from tests.reviews import open_shop
from valdrix.admin_site import console
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

EVERYBODY = (
    "enforcement_decision",
    "billing_account",
    "governance_policyversion",
    "governance_forcedmode",
    "governance_approval",
    "governance_apikey",
)
ADMINS = (
    "enforcement_ledgerentry",
    "enforcement_delivery",
    "enforcement_runtask",
    "governance_auditentry",
    "governance_incident",
    "billing_reservation",
    "billing_settlementrecord",
    "billing_quotacount",
    "governance_membership",
    "governance_reviewergroup",
)
OWNERS = ("governance_integration", "governance_workloadissuer")
ALL = EVERYBODY + ADMINS + OWNERS


def sign_in(person: Person, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(User.objects.get(pk=person.user_id))
    return client


@pytest.fixture(scope="module")
def shown(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> World:
    """Give one tenant with rows everywhere to all tests that only look, or are refused."""
    return _planted(django_db_blocker)


@pytest.fixture(scope="module")
def hidden(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> World:
    """Give a second such tenant, which who looks at the first must not see."""
    return _planted(django_db_blocker)


@pytest.fixture(scope="module")
def reader(shown: World, django_db_blocker: DjangoDbBlocker) -> Client:
    """Give a session of the owner of what is shown."""
    with django_db_blocker.unblock():
        return sign_in(shown.owner)


def _planted(blocker: DjangoDbBlocker) -> World:
    with blocker.unblock():
        world = create_world()
        plant_rows(world)
    return world


def list_url(name: str) -> str:
    return reverse(f"admin:{name}_changelist")


def page_url(name: str, key: object) -> str:
    return reverse(f"admin:{name}_change", args=[str(key)])


def gate(world: World, **changes: Any) -> dict[str, Any]:
    body = {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "module.web",
        "estimated_monthly_delta_usd": "300.00",
    }
    response = Api().post("gate/terraform", body | changes, key=world.key)
    assert response.status_code == 200, response.content
    return response.json()


def add_budget(world: World, project: str = "shop", limit: int = 1000) -> Account:
    with transaction(world.id):
        return Account.objects.create(
            id=new_id(),
            tenant_id=world.id,
            kind="budget",
            project_id=project,
            environment="nonprod",
            monthly_limit_usd=limit,
            created_at=datetime.now(UTC),
            created_by="user:1",
        )


def add_settlement(world: World, decision_id: object, **changes: Any) -> SettlementRecord:
    terms = {
        "project_id": "shop",
        "environment": "prod",
        "trigger": "manual",
        "reserved_usd": 5,
        "actual_usd": 5,
        "posted_usd": 5,
        "overrun_usd": 0,
        "drift_usd": 0,
        "settled_by": "user:1",
        "settled_at": datetime.now(UTC),
        "result_json": "{}",
    }
    with transaction(world.id):
        return SettlementRecord.objects.create(
            id=new_id(),
            tenant_id=world.id,
            family_id=decision_id,
            decision_id=decision_id,
            **(terms | changes),
        )


def see_wrong(world: World, subject: str, *, kind: str = "kept_total_differs", detail: str) -> None:
    with transaction(world.id):
        open_incident(
            sighting=Sighting(
                incident_id=new_id(),
                tenant_id=world.id,
                kind=kind,
                subject=subject,
                detail=detail,
                at=datetime.now(UTC),
            )
        )


def keys_of(world: World) -> dict[str, object]:
    """Return, for each list, the key of one of the tenant's rows as addresses spell it."""
    with reading(world.id):
        return {
            "enforcement_decision": Decision.objects.values_list("id", flat=True)[0],
            "enforcement_ledgerentry": LedgerEntry.objects.order_by("-sequence")[0].sequence,
            "enforcement_delivery": Delivery.objects.values_list("id", flat=True)[0],
            "billing_account": Account.objects.values_list("id", flat=True)[0],
            "billing_reservation": Decision.objects.values_list("id", flat=True)[0],
            "billing_settlementrecord": SettlementRecord.objects.values_list("id", flat=True)[0],
            "billing_quotacount": QuotaCount.objects.values_list("id", flat=True)[0],
            "governance_approval": Approval.objects.values_list("id", flat=True)[0],
            "governance_auditentry": AuditEntry.objects.values_list("id", flat=True)[0],
            "governance_incident": Incident.objects.values_list("id", flat=True)[0],
            "enforcement_runtask": RunTask.objects.values_list("id", flat=True)[0],
            "governance_integration": Integration.objects.values_list("id", flat=True)[0],
            "governance_workloadissuer": WorkloadIssuer.objects.values_list("id", flat=True)[0],
            "governance_membership": Membership.objects.values_list("user_id", flat=True)[0],
            "governance_reviewergroup": ReviewerGroup.objects.values_list("id", flat=True)[0],
            "governance_apikey": ApiKey.objects.get(name="owner key").pk,
            "governance_forcedmode": _forced_mode_key(),
            "governance_policyversion": PolicyVersion.objects.order_by("-number")[0].number,
        }


def _forced_mode_key() -> object:
    model = next(m for m in console._registry if m._meta.model_name == "forcedmode")
    return model.objects.values_list("id", flat=True)[0]


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


@contextmanager
def at_most(queries: int) -> Iterator[None]:
    with CaptureQueriesContext(connection) as captured:
        yield
    statements = [one["sql"] for one in captured.captured_queries]
    assert len(statements) <= queries, "\n".join(one[:160] for one in statements)


# Who comes in


@pytest.mark.parametrize("name", ALL)
def test_anonymous_people_are_sent_to_sign_in(tenant: World, name: str) -> None:
    for url in (reverse("admin:index"), list_url(name), page_url(name, new_id())):
        response = Client().get(url)
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("admin:login"))


def test_a_member_signs_in_without_being_staff(tenant: World) -> None:
    user = User.objects.get(pk=tenant.member.user_id)
    user.set_password("correct-horse-battery")
    user.save(update_fields=["password"])
    assert not user.is_staff
    client = Client()
    form = text_of(client.get(reverse("admin:index"), follow=True))
    assert f'name="next" value="{reverse("admin:index")}"' in form
    credentials = {
        "username": user.username,
        "password": "correct-horse-battery",
        "next": reverse("admin:index"),
    }
    wrong = client.post(reverse("admin:login"), credentials | {"password": "no"})
    assert "is not right" in text_of(wrong)
    response = client.post(reverse("admin:login"), credentials, follow=True)
    assert response.status_code == 200
    assert response.redirect_chain[-1][0] == reverse("admin:index")
    assert f"Tenant {tenant.slug}" in text_of(response)


def test_a_next_address_on_another_host_is_not_followed(tenant: World) -> None:
    user = User.objects.get(pk=tenant.member.user_id)
    user.set_password("correct-horse-battery")
    user.save(update_fields=["password"])
    response = Client().post(
        reverse("admin:login") + "?next=https://example.org/",
        {"username": user.username, "password": "correct-horse-battery"},
    )
    assert response.status_code == 302
    assert "example.org" not in response["Location"]


def test_a_superuser_without_a_membership_sees_nothing(tenant: World) -> None:
    plant_rows(tenant)
    root = User.objects.create_superuser(f"root-{new_id().hex[-8:]}")
    client = Client()
    client.force_login(root)
    for url in (reverse("admin:index"), *map(list_url, ALL)):
        response = client.get(url)
        assert response.status_code == 403
        assert "no tenant has you as a member" in text_of(response)
    for name, key in keys_of(tenant).items():
        response = client.get(page_url(name, key))
        assert response.status_code in {403, 404}
        assert str(tenant.id) not in text_of(response)


def test_being_staff_or_superuser_adds_nothing_to_a_membership(tenant: World) -> None:
    User.objects.filter(pk=tenant.member.user_id).update(is_staff=True, is_superuser=True)
    client = sign_in(tenant.member)
    assert client.get(reverse("admin:index")).status_code == 200
    assert client.get(list_url("enforcement_decision")).status_code == 200
    for name in ADMINS + OWNERS:
        assert client.get(list_url(name)).status_code == 403


def test_a_person_who_left_the_tenant_sees_nothing_at_once(tenant: World) -> None:
    client = sign_in(tenant.member)
    assert client.get(list_url("enforcement_decision")).status_code == 200
    with transaction(tenant.id):
        Membership.objects.filter(user_id=tenant.member.user_id).delete()
    assert client.get(list_url("enforcement_decision")).status_code == 403


def test_a_deactivated_person_is_sent_to_sign_in(tenant: World) -> None:
    client = sign_in(tenant.owner)
    User.objects.filter(pk=tenant.owner.user_id).update(is_active=False)
    assert client.get(reverse("admin:index")).status_code == 302


# What each role sees


@pytest.mark.parametrize(
    ("role", "seen"),
    [("member", EVERYBODY), ("admin", EVERYBODY + ADMINS), ("owner", ALL)],
)
def test_a_role_sees_its_lists_and_pages_and_no_other(
    tenant: World, role: str, seen: tuple[str, ...]
) -> None:
    plant_rows(tenant)
    client = sign_in(getattr(tenant, role))
    menu = text_of(client.get(reverse("admin:index")))
    for name, key in keys_of(tenant).items():
        expected = 200 if name in seen else 403
        assert client.get(list_url(name)).status_code == expected, name
        # An approval that a member neither asked for nor may judge does not exist for them, and
        # neither do other people's keys for who is no owner.
        hidden = (name == "governance_approval" and role == "member") or (
            name == "governance_apikey" and role != "owner"
        )
        page = 404 if hidden else expected
        assert client.get(page_url(name, key)).status_code == page, name
        assert (f'href="{list_url(name)}' in menu) == (name in seen), name


def test_a_refusal_says_which_role_one_has(tenant: World) -> None:
    text = text_of(sign_in(tenant.admin).get(list_url("governance_integration")))
    assert f"You are an admin of Tenant {tenant.slug}" in text


def test_a_member_sees_no_ledger_entries_on_a_decision(tenant: World) -> None:
    add_budget(tenant)
    decision_id = gate(tenant)["decision_id"]
    url = page_url("enforcement_decision", decision_id)
    entry = list_url("enforcement_ledgerentry")
    assert entry in text_of(sign_in(tenant.admin).get(url))
    member_sees = text_of(sign_in(tenant.member).get(url))
    assert entry not in member_sees
    assert "are shown to admins and owners" in member_sees


def test_api_keys_are_shown_without_digests(tenant: World) -> None:
    with reading(tenant.id):
        digests = [bytes(one).hex() for one in ApiKey.objects.values_list("digest", flat=True)]
    client = sign_in(tenant.owner)
    with CaptureQueriesContext(connection) as captured:
        texts = [text_of(client.get(list_url("governance_apikey")))]
        texts.append(text_of(client.get(page_url("governance_apikey", tenant.owner.key_id))))
    assert tenant.owner.key[4:16] in texts[1]
    for text in texts:
        assert tenant.owner.key not in text
        assert not any(digest in text.lower() for digest in digests)
    assert not any('"digest"' in one["sql"] for one in captured.captured_queries)


# Isolation


@pytest.mark.parametrize("name", ALL)
def test_another_tenants_row_does_not_exist(
    shown: World, reader: Client, hidden: World, name: str
) -> None:
    foreign, own = keys_of(hidden)[name], keys_of(shown)[name]
    assert reader.get(page_url(name, own)).status_code == 200
    if name in {"enforcement_ledgerentry", "governance_policyversion"}:
        # Both tenants have a number 1: it must be the own one. A number beyond is nobody's.
        assert str(hidden.id) not in text_of(reader.get(page_url(name, foreign)))
        foreign = 4711
    response = reader.get(page_url(name, foreign))
    assert response.status_code == 404
    assert "no such page in this tenant" in text_of(response)


@pytest.mark.parametrize("name", ALL)
def test_lists_never_show_another_tenants_rows(
    shown: World, reader: Client, hidden: World, name: str
) -> None:
    view = {"billing_account": "?kind=grant", "governance_approval": "?view=all"}
    url = list_url(name) + view.get(name, "")
    text = text_of(reader.get(url))
    keys, foreign = keys_of(shown), keys_of(hidden)
    assert page_url(name, keys[name]) in text
    if name not in {
        "enforcement_ledgerentry", "governance_policyversion", "governance_membership",
        "billing_quotacount",
    }:  # fmt: skip
        assert str(foreign[name]) not in text
    if name == "billing_quotacount":
        assert page_url(name, foreign[name]) not in text
    assert hidden.slug not in text
    for one in foreign.values():
        assert len(str(one)) < 36 or str(one) not in text


def test_the_landing_page_is_one_tenants(tenant: World, other_tenant: World) -> None:
    add_budget(tenant)
    add_budget(other_tenant, project="theirs")
    own = gate(tenant)["decision_id"]
    foreign = gate(other_tenant, project_id="theirs")["decision_id"]
    text = text_of(sign_in(tenant.member).get(reverse("admin:index")))
    assert own in text
    assert foreign not in text
    assert "theirs" not in text


def test_the_database_refuses_what_the_filter_forgets(
    tenant: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the application's filter removed, row-level security still shows no foreign row."""
    plant_rows(tenant)
    plant_rows(other_tenant)
    admin = console._registry[Decision]
    monkeypatch.setattr(admin, "get_queryset", lambda request: Decision.objects.order_by("-id"))
    text = text_of(sign_in(tenant.owner).get(list_url("enforcement_decision")))
    assert str(keys_of(tenant)["enforcement_decision"]) in text
    assert str(keys_of(other_tenant)["enforcement_decision"]) not in text


def test_a_person_of_two_tenants_chooses_by_post(tenant: World, other_tenant: World) -> None:
    username = User.objects.get(pk=tenant.owner.user_id).username
    admit_member(actor=system_actor(other_tenant.id), username=username, role=MEMBER)
    client = sign_in(tenant.owner)
    url = reverse("admin:choose_tenant")
    for world, role in ((other_tenant, MEMBER), (tenant, OWNER)):
        response = client.post(url, {"tenant": str(world.id)}, follow=True)
        assert f"Tenant {world.slug}, " in text_of(response)
        keys = client.get(list_url("governance_integration"))
        assert keys.status_code == (200 if role == OWNER else 403)
    assert client.get(url).status_code == 405


def test_a_tenant_that_is_not_ones_own_cannot_be_chosen(tenant: World, other_tenant: World) -> None:
    client = sign_in(tenant.owner)
    response = client.post(reverse("admin:choose_tenant"), {"tenant": str(other_tenant.id)})
    assert response.status_code == 404
    assert f"Tenant {tenant.slug}, " in text_of(client.get(reverse("admin:index")))


def test_a_session_that_names_a_foreign_tenant_gets_the_own_one(
    tenant: World, other_tenant: World
) -> None:
    client = sign_in(tenant.owner)
    session = client.session
    session["console_tenant"] = str(other_tenant.id)
    session.save()
    text = text_of(client.get(reverse("admin:index")))
    assert f"Tenant {tenant.slug}, " in text
    assert other_tenant.slug not in text


def test_choosing_a_tenant_needs_the_form_token(tenant: World) -> None:
    client = sign_in(tenant.owner, enforce_csrf_checks=True)
    response = client.post(reverse("admin:choose_tenant"), {"tenant": str(tenant.id)})
    assert response.status_code == 403


# Read only


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("name", ALL)
def test_nothing_is_written_through_the_console(
    shown: World, reader: Client, name: str, method: str
) -> None:
    key = keys_of(shown)[name]
    before = _rows(shown)
    form = {"action": "delete_selected", "_selected_action": [str(key)], "post": "yes"}
    for url in (list_url(name), page_url(name, key)):
        data = form if method == "post" else None
        assert getattr(reader, method)(url, data).status_code == 405
    assert _rows(shown) == before


def _rows(world: World) -> list[list[dict[str, Any]]]:
    with reading(world.id):
        return [list(model._default_manager.order_by("pk").values()) for model in console._registry]


@pytest.mark.parametrize("name", ALL)
def test_there_is_no_address_that_adds_deletes_or_shows_history(
    shown: World, reader: Client, name: str
) -> None:
    key = keys_of(shown)[name]
    base = list_url(name)
    for path in ("add/", f"{key}/delete/", f"{key}/history/", f"{key}/"):
        assert reader.get(base + path).status_code == 404, path
    for model in console._registry:
        assert not console._registry[model].has_change_permission(reader)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["r/1/1/", "search/?s=x", "autocomplete/", "auth/group/"])
def test_djangos_routes_that_know_no_tenant_are_not_there(reader: Client, path: str) -> None:
    response = reader.get(reverse("admin:index") + path)
    assert response.status_code == 404


def test_djangos_own_people_and_groups_are_not_in_the_console() -> None:
    assert {model._meta.label for model in console._registry}.isdisjoint(
        {"auth.Group", "governance.User"}
    )


# Bad addresses and queries


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "key", ["x", "%00", "0", "-1", "9" * 5000, "9" * 30, "٣", "%F0%9F%92%A9", "None", "1e400"]
)
def test_a_key_of_no_row_is_not_found(reader: Client, name: str, key: str) -> None:
    url = f"{list_url(name)}{key}/change/"
    assert reader.get(url).status_code == 404


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=" + "x" * 5000,
        "q=%ED%A0%80",
        "decision=%00",
        "kind=%00",
        "project_id=%00",
        "status=nonsense&state=nonsense&event=nonsense",
        "p=0",
        "p=99999999999999999999",
        "p=x",
        "o=1.2.-3",
        "all=1",
        "_to_field=id",
        "_popup=1",
        "tenant_id=00000000-0000-0000-0000-000000000000",
        "digest__startswith=a",
        "response_json__contains=secret",
        "person__password__startswith=a",
        "e=1",
    ],
)
def test_a_strange_query_is_answered(reader: Client, name: str, query: str) -> None:
    response = reader.get(f"{list_url(name)}?{query}", follow=True)
    assert response.status_code == (
        400 if query == "_to_field=id" and "id" not in _fields(name) else 200
    )


def _fields(name: str) -> set[str]:
    model = next(m for m in console._registry if m._meta.label_lower == name.replace("_", ".", 1))
    return {field.name for field in model._meta.fields}


def test_a_query_can_compare_no_column_but_the_declared_filters(tenant: World) -> None:
    client = sign_in(tenant.owner)
    with CaptureQueriesContext(connection) as captured:
        # No random part of a key or a session reads so.
        asked = "?digest__startswith=never-asked&role=never-asked"
        text = text_of(client.get(list_url("governance_apikey") + asked))
    assert "member key" in text
    assert not any("never-asked" in one["sql"] for one in captured.captured_queries)


# Filters and search


def test_decisions_are_filtered_and_searched(tenant: World) -> None:
    add_budget(tenant)
    small = gate(tenant)["decision_id"]
    other = gate(tenant, project_id="search-index", environment="prod")["decision_id"]
    client = sign_in(tenant.member)
    base = list_url("enforcement_decision")
    shown = {
        "": {small, other},
        "?project_id=shop": {small},
        "?environment=prod": {other},
        "?source=terraform": {small, other},
        "?source=cloud_event": set(),
        f"?q={small}": {small},
        "?q=INDEX": {other},
        "?q=shop&environment=prod": set(),
        "?environment=nonsense": {small, other},
    }
    for query, expected in shown.items():
        text = text_of(client.get(base + query))
        assert {one for one in (small, other) if one in text} == expected, query
    assert text_of(client.get(base)).index(other) < text_of(client.get(base)).index(small)
    assert "No decision matches" in text_of(client.get(base + "?source=cloud_event"))


def test_ledger_entries_are_found_by_decision(tenant: World) -> None:
    first, second = (gate(tenant, project_id=name)["decision_id"] for name in ("one", "two"))
    text = text_of(sign_in(tenant.admin).get(list_url("enforcement_ledgerentry") + f"?q={first}"))
    assert page_url("enforcement_decision", first) in text
    assert second not in text


def test_ledger_entries_are_narrowed_by_time_event_approval_decision_and_resource(
    tenant: World,
) -> None:
    open_shop(tenant)
    asked = [gate(tenant, resource_reference=name) for name in ("one", "two")]
    with reading(tenant.id):
        moments = {
            str(one.decision_id): one.at
            for one in LedgerEntry.objects.filter(event="decision_made")
        }
    first, second = (one["decision_id"] for one in asked)
    between = (moments[second]).strftime("%Y-%m-%dT%H:%M:%S.%f")
    client, base = sign_in(tenant.admin), list_url("enforcement_ledgerentry")
    shown = {
        "?event=approval_requested": {first, second},
        "?event=approval_approved": set(),
        f"?decision_id={first}": {first},
        f"?approval={asked[1]['approval_request_id']}": {second},
        f"?approval={asked[1]['approval_request_id']}&decision_id={first}": set(),
        "?resource=one": {first},
        "?resource=on": set(),
        f"?since={between}": {second},
        f"?until={between}": {first},
        f"?since={between}&until={between}": set(),
        "?since=2020-01-01T00:00": {first, second},
        "?since=yesterday": set(),
        "?until=2020-01-01T00:00%2B25:00": set(),
        "?approval=x": set(),
        "?decision_id=%00": set(),
        "?resource=" + "r" * 3000: set(),
    }
    for query, expected in shown.items():
        response = client.get(base + query)
        assert response.status_code == 200, query
        assert {one for one in (first, second) if one in _rows_of(response)} == expected, query
    page = text_of(client.get(base + "?resource=one&since=2020-01-01T00:00"))
    assert 'value="one"' in page
    assert 'type="datetime-local" name="since" value="2020-01-01T00:00"' in page


def _rows_of(response: HttpResponse) -> str:
    """Return a list's table: the filters repeat what was typed."""
    _, _, table = text_of(response).partition('id="result_list"')
    return table


def test_settlements_are_filtered_by_exception_and_found_by_decision(tenant: World) -> None:
    usual, odd = (gate(tenant, project_id=name)["decision_id"] for name in ("one", "two"))
    add_settlement(tenant, usual)
    late = add_settlement(
        tenant,
        odd,
        trigger="auto",
        actual_usd=1207,
        posted_usd=1206,
        overrun_usd=1201,
        drift_usd=1202,
        exception_reason="drift_above_threshold",
        notes="asked the team",
        settled_by="system:overdue",
    )
    client = sign_in(tenant.admin)
    base = list_url("billing_settlementrecord")
    shown = {
        "": {usual, odd},
        "?exceptions=only": {odd},
        "?exceptions=none": {usual},
        "?exceptions=nonsense": {usual, odd},
        "?exception_reason=drift_above_threshold": {usual, odd},
        f"?q={usual}": {usual},
        f"?q={usual}&exceptions=only": set(),
        "?q=two": set(),
    }
    for query, expected in shown.items():
        text = text_of(client.get(base + query))
        found = {one for one in (usual, odd) if page_url("enforcement_decision", one) in text}
        assert found == expected, query
    texts = (
        text_of(client.get(base + "?exceptions=only")),
        text_of(client.get(page_url("billing_settlementrecord", late.id))),
    )
    parts = ("5.00", "1,207.00", "1,206.00", "1,201.00", "+1,202.00", "drift above threshold")
    for text in texts:
        for part in (*parts, "auto", "system:overdue", page_url("enforcement_decision", odd)):
            assert part in text, part
    assert "asked the team" in texts[1]


def test_incidents_are_filtered_by_state_and_counted(tenant: World) -> None:
    for subject in ("account-a", "account-b", "account-b"):
        see_wrong(tenant, subject, detail=f"totals of {subject} differ")
    with reading(tenant.id):
        mended, lasting = Incident.objects.order_by("subject")
    actor = system_actor(tenant.id)
    resolve_incident(actor=actor, incident_id=mended.id, reason="mended by hand")
    client = sign_in(tenant.admin)
    base = list_url("governance_incident")
    shown = {
        "": {"account-a", "account-b"},
        "?state=open": {"account-b"},
        "?state=resolved": {"account-a"},
        "?state=nonsense": {"account-a", "account-b"},
    }
    for query, expected in shown.items():
        text = text_of(client.get(base + query))
        assert {one for one in ("account-a", "account-b") if one in text} == expected, query
    still = text_of(client.get(page_url("governance_incident", lasting.id)))
    assert "totals of account-b differ" in still
    assert re.search(r"Occurrences\s*</dt>\s*<dd[^>]*>\s*2\s*<", still)
    closed = text_of(client.get(page_url("governance_incident", mended.id)))
    assert f"{actor.at:%Y-%m-%d %H:%M:%S} UTC" in closed


# The page of a decision


def test_a_decision_page_tells_everything(tenant: World) -> None:
    budget = add_budget(tenant, limit=1000)
    answer = gate(tenant, idempotency_key="pr-1", team="web", metadata={"family": "m7"})
    text = text_of(
        sign_in(tenant.owner).get(page_url("enforcement_decision", answer["decision_id"]))
    )
    with reading(tenant.id):
        entries = list(LedgerEntry.objects.filter(decision_id=answer["decision_id"]))
    assert entries
    expected = [
        answer["explanation"]["summary"],
        answer["request_fingerprint"],
        answer["change_fingerprint"],
        answer["policy_document_sha256"],
        "pr-1",
        "m7",
        "nonprod (asked as “dev”)",
        page_url("billing_account", budget.id),
        "Plan ceiling",
        "Project budget",
        "Reserved credits",
        "Emergency credits",
        "Enterprise ceiling",
        tenant.member.username,
        *(one["title"] for one in answer["explanation"]["reason_codes"]),
        *(bytes(one.entry_hash).hex() for one in entries),
        *(page_url("enforcement_ledgerentry", one.sequence) for one in entries),
    ]
    for part in expected:
        assert part.replace("'", "&#x27;") in text, part
    times = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(.{4})", text)
    assert times
    assert set(times) == {" UTC"}


def test_the_waterfall_is_drawn_and_told(tenant: World) -> None:
    add_budget(tenant, limit=400)
    answer = gate(tenant)
    denied = gate(tenant, resource_reference="module.other")
    client = sign_in(tenant.member)
    fits = text_of(client.get(page_url("enforcement_decision", answer["decision_id"])))
    over = text_of(client.get(page_url("enforcement_decision", denied["decision_id"])))
    assert "Project budget: used 0.00, this change 300.00 of a limit of 400.00 USD" in fits
    assert 'class="vx-bar__over"' not in fits
    assert (
        "Project budget: used 300.00, this change 100.00 of a limit of 400.00 USD;"
        " 200.00 USD do not fit"
    ) in over
    assert re.search(r'class="vx-bar__this" x="50.00%" width="16.67%"', over)
    assert "First to limit: <strong>Project budget</strong>" in over


def test_a_pending_approval_is_told_to_who_may_know(tenant: World) -> None:
    answer = gate(tenant, environment="prod", estimated_monthly_delta_usd=None)
    if answer["approval_request_id"] is None:
        pytest.fail(f"the strictest policy did not ask for an approval: {answer['decision']}")
    url = page_url("enforcement_decision", answer["decision_id"])
    approval_id = answer["approval_request_id"]
    link = page_url("governance_approval", approval_id)
    assert link in text_of(sign_in(tenant.admin).get(url))
    requester = text_of(sign_in(tenant.member).get(url))
    assert "<h2>Approval</h2>" in requester
    assert link not in requester


EVIL = "<script>alert(1)</script>"


def test_what_callers_wrote_is_escaped_everywhere(tenant: World) -> None:
    add_budget(tenant, project=EVIL)
    answer = gate(
        tenant,
        project_id=EVIL,
        resource_reference='"><img src=x onerror=alert(2)>',
        team=EVIL,
        metadata={EVIL: "</pre><script>alert(3)</script>"},
        idempotency_key="</code><script>alert(4)</script>",
    )
    see_wrong(tenant, EVIL, kind=EVIL, detail=f"</pre>{EVIL}")
    add_settlement(
        tenant,
        answer["decision_id"],
        project_id=EVIL,
        exception_reason=EVIL,
        idempotency_key=EVIL,
        notes=EVIL,
        settled_by=EVIL,
        result_json=f"</pre>{EVIL}",
    )
    client = sign_in(tenant.owner)
    urls = [
        reverse("admin:index"),
        page_url("enforcement_decision", answer["decision_id"]),
        f"{list_url('enforcement_decision')}?q={EVIL}",
        *map(list_url, ALL),
        *(page_url(name, key) for name, key in _present_keys(tenant).items()),
    ]
    seen = 0
    for url in urls:
        text = text_of(client.get(url))
        assert "<script>alert" not in text, url
        assert "<img src=x" not in text, url
        seen += text.count("&lt;script&gt;alert")
    assert seen > 10


def _present_keys(world: World) -> dict[str, object]:
    with reading(world.id):
        return {
            "enforcement_ledgerentry": LedgerEntry.objects.order_by("-sequence")[0].sequence,
            "billing_account": Account.objects.filter(kind="budget")[0].id,
            "governance_auditentry": AuditEntry.objects.all()[0].id,
            "governance_incident": Incident.objects.get().id,
            "billing_settlementrecord": SettlementRecord.objects.get().id,
        }


def test_a_decision_without_a_full_response_still_has_a_page(tenant: World) -> None:
    plant_rows(tenant)
    with reading(tenant.id):
        decision_id = Decision.objects.get().id
    text = text_of(sign_in(tenant.owner).get(page_url("enforcement_decision", decision_id)))
    assert "only what was stored is shown" in text
    assert "The waterfall was not run" in text


def test_pages_have_no_inline_style_or_script_of_ours(tenant: World) -> None:
    add_budget(tenant)
    answer = gate(tenant)
    text = text_of(
        sign_in(tenant.owner).get(page_url("enforcement_decision", answer["decision_id"]))
    )
    content = text[text.index('id="content"') : text.index("</body>")]
    content = content[: content.index("unfold/js/simplebar")] if "simplebar" in content else content
    body = content[: content.rindex("vx-panel")]
    assert " style=" not in body
    assert "<script" not in body
    assert not re.search(r"\son[a-z]+=", body)
    hosts = set(re.findall(r'(?:src|href)="(https?:)?//', text))
    assert not hosts


# Money


def meter(world: World, units: int, *, at: datetime, person_id: int | None = None) -> None:
    made = reserve(
        origin=Origin(tenant_id=world.id, reservation_id=new_id(), principal_id="key:ci", at=at),
        wanted=MeteredRequest(meter=LLM_TOKENS, units=units, person_id=person_id),
        quota=QUOTAS[LLM_TOKENS][FREE],
        is_suspended=False,
    )
    assert isinstance(made, QuotaReservation)


def test_metered_use_is_listed_by_day_and_holder_with_the_switch(
    tenant: World, other_tenant: World, settings: Any
) -> None:
    now = datetime.now(UTC)
    for _ in range(2):
        meter(tenant, 4000, at=now, person_id=tenant.member.user_id)
    meter(tenant, 500, at=now - timedelta(days=3))
    meter(other_tenant, 77, at=now, person_id=other_tenant.member.user_id)
    client = sign_in(tenant.admin)
    base = list_url("billing_quotacount")
    with at_most(13):
        text = text_of(client.get(base))
    for shown in (
        tenant.member.username,
        "whole tenant",
        "8,000",
        "12,000",
        "nearly full",
        "day is over",
    ):
        assert shown in text, shown
    assert "New use is taken as far as the plan goes." in text
    assert other_tenant.member.username not in text
    day = (now - timedelta(days=3)).date()
    older = text_of(client.get(base, {"day": str(day)}))
    assert str(day) in older
    assert tenant.member.username not in older
    assert "Nothing was metered yet" in text_of(client.get(base, {"day": "soon"}))
    with reading(tenant.id):
        count = QuotaCount.objects.get(holder=f"user:{tenant.member.user_id}")
    settings.METERED_USE_SUSPENDED = True
    for url in (base, page_url("billing_quotacount", count.pk)):
        assert "METERED_USE_SUSPENDED" in text_of(client.get(url))
    page = text_of(client.get(page_url("billing_quotacount", count.pk)))
    assert page.count("4,000, used –") == page.count("held 4,000") == 2
    assert client.post(base, {}).status_code == 405


def test_who_left_keeps_what_they_used(tenant: World) -> None:
    meter(tenant, 10, at=datetime.now(UTC), person_id=tenant.member.user_id)
    with transaction(tenant.id):
        Membership.objects.filter(user_id=tenant.member.user_id).delete()
    text = text_of(sign_in(tenant.admin).get(list_url("billing_quotacount")))
    assert f"person {tenant.member.user_id}, who left" in text


def test_budgets_and_grants_are_told_apart(tenant: World) -> None:
    budget = add_budget(tenant, limit=400)
    plant_rows(tenant)
    gate(tenant)
    client = sign_in(tenant.member)
    base = list_url("billing_account")
    budgets, grants = text_of(client.get(base)), text_of(client.get(base + "?kind=grant"))
    assert page_url("billing_account", budget.id) in budgets
    assert page_url("billing_account", budget.id) not in grants
    assert "100.00 of 100.00" in grants
    assert "Settled 0.00, held 300.00, overrun 0.00 of a limit of 400.00 USD" in budgets
    exposure = text_of(client.get(base + "?kind=exposure"))
    assert "300.00" in exposure


# Bounded queries


def test_pages_take_a_fixed_number_of_statements(tenant: World) -> None:
    """Session, user, memberships, the transaction's own three, and a few reads; never one a row."""
    for number in range(3):
        add_budget(tenant, project=f"p{number}")
    answer = gate(tenant, project_id="p0")
    for number in range(1, 12):
        gate(tenant, project_id=f"p{number % 3}", resource_reference=f"r{number}")
    client = sign_in(tenant.owner)
    client.get(reverse("admin:index"))
    for name in ALL:
        # A list of approvals also reads who may judge, and who has.
        with at_most(22 if name == "governance_approval" else 13):
            assert client.get(list_url(name)).status_code == 200
    with at_most(26):
        client.get(reverse("admin:index"))
    with at_most(14):
        client.get(page_url("enforcement_decision", answer["decision_id"]))


def test_a_list_takes_no_more_statements_for_more_rows(tenant: World) -> None:
    client = sign_in(tenant.owner)
    client.get(reverse("admin:index"))
    add_budget(tenant, project="p0")
    gate(tenant, project_id="p0")
    counts = []
    for _ in range(2):
        row = []
        for name in ALL:
            with CaptureQueriesContext(connection) as captured:
                client.get(list_url(name))
            row.append(len(captured.captured_queries))
        counts.append(row)
        if len(counts) == 1:
            for number in range(1, 6):
                add_budget(tenant, project=f"p{number}")
                gate(tenant, project_id=f"p{number}", resource_reference=f"r{number}")
    assert counts[0] == counts[1]
