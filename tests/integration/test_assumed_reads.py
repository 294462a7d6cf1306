"""A page is read for whom a key spoke a moment ago, and shown once the same message confirmed it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext

from governance.api.authentication import CONFIRMS
from governance.api.permissions import _Permission
from governance.identity.domain import ADMIN, MEMBER
from governance.identity.operations import change_role
from governance.models import ApiKey
from tests.assumed import assume_for_long, note_uses_ahead
from tests.client import BASE, Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World, system_actor
from tests.integration.exports.history import KEY
from tests.integration.test_assumed_keys import ENDS, IN_FULL, METHODS, restrict, statements
from valdrix.kernel.db import transaction
from valdrix.kernel.http.problem_response import CONTENT_TYPE
from valdrix.routes import list_routes

ON_THE_WAY: Final = "governance_refuse_changed_keys"
FOR_MEMBERS: Final = ("policies", "budgets", "credits", "approvals/queue")
FOR_ADMINS: Final = ("ledger", "exports/parity?limit=10")


@pytest.fixture(autouse=True)
def _whatever_the_machine_does(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    assume_for_long(monkeypatch)
    settings.EXPORT_SIGNING_KEY = KEY


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Give a shop whose keys were all asked about in full a moment ago."""
    made = Shop(tenant)
    made.budget("1000.00")
    made.ask("1.00", key="seen")
    note_uses_ahead(tenant)
    for person in (tenant.member, tenant.admin):
        assert read(person, "policies").status_code == 200
    return made


def read(person: Person, path: str, **options: Any) -> HttpResponse:
    return Api().get(path, key=person.key, **options)


def code_of(response: HttpResponse) -> str | None:
    is_problem = response["Content-Type"] == CONTENT_TYPE
    return response.json()["code"] if is_problem else None


@pytest.mark.parametrize("path", [*FOR_MEMBERS, *FOR_ADMINS])
def test_a_page_costs_one_message(shop: Shop, path: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        answer = read(shop.world.admin, path)

    assert answer.status_code == 200
    (sent,) = statements(captured)
    assert ON_THE_WAY in sent
    assert sent.index("valdrix.tenant") < sent.index(ON_THE_WAY)
    assert IN_FULL not in sent


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("path", FOR_MEMBERS)
def test_a_key_that_ended_reads_nothing(shop: Shop, path: str, end: str) -> None:
    ENDS[end](shop.world)

    answers = [read(shop.world.member, path) for _ in range(2)]

    assert [(one.status_code, code_of(one)) for one in answers] == [
        (401, "authentication_failed")
    ] * 2


@pytest.mark.parametrize("path", FOR_ADMINS)
def test_who_is_no_admin_any_more_reads_nothing_of_admins(shop: Shop, path: str) -> None:
    change_role(actor=system_actor(shop.world.id), person_id=shop.world.admin.user_id, role=MEMBER)

    answer = read(shop.world.admin, path)

    assert (answer.status_code, code_of(answer)) == (403, "role_missing")


@pytest.mark.parametrize("path", FOR_ADMINS)
def test_who_became_an_admin_is_not_refused_for_what_they_were(shop: Shop, path: str) -> None:
    world = shop.world
    assert read(world.member, path).status_code == 403
    with transaction(world.id):
        assert ApiKey.objects.filter(pk=world.member.key_id).update(role=ADMIN) == 1
    change_role(actor=system_actor(world.id), person_id=world.member.user_id, role=ADMIN)

    assert read(world.member, path).status_code == 200


def test_a_key_bound_to_other_projects_sees_those(shop: Shop) -> None:
    world = shop.world
    seen = read(world.admin, "budgets").json()["results"]
    assert [one["project_id"] for one in seen] == ["shop"]
    restrict(world, projects=["site"])

    with CaptureQueriesContext(connection) as captured:
        answer = read(world.admin, "budgets")

    assert (answer.status_code, answer.json()["results"]) == (200, [])
    assert sum(IN_FULL in text for text in statements(captured)) == 1
    refused = read(world.admin, "exports/parity?limit=10")
    assert (refused.status_code, code_of(refused)) == (403, "project_not_allowed")


def test_a_use_that_is_due_to_be_noted_is_noted(shop: Shop) -> None:
    with transaction(shop.world.id):
        mine = ApiKey.objects.filter(pk=shop.world.member.key_id)
        mine.update(last_used_at=datetime.now(UTC) - timedelta(minutes=2))

    with CaptureQueriesContext(connection) as captured:
        assert read(shop.world.member, "budgets").status_code == 200

    assert [IN_FULL in text for text in statements(captured)] == [False, True, False]


@pytest.mark.parametrize("query", ["?limit=0", "?cursor=no", "?surprise=1"])
def test_what_is_refused_unread_is_refused_to_whom_the_key_speaks_for(
    shop: Shop, query: str
) -> None:
    assert read(shop.world.member, f"budgets{query}").status_code in {400, 422}
    ENDS["revoked"](shop.world)

    answer = read(shop.world.member, f"budgets{query}")

    assert (answer.status_code, code_of(answer)) == (401, "authentication_failed")


def test_a_body_is_no_part_of_a_read(shop: Shop) -> None:
    answer = Api().send("GET", "budgets", b"{", key=shop.world.member.key)

    assert answer.status_code == 200


def test_reads_that_assume_are_let_in_by_permissions_that_ask_a_principal() -> None:
    found = []
    for route in list_routes():
        view = route.view_class
        if view is None or not hasattr(getattr(view, "get", None), CONFIRMS):
            continue
        assert all(issubclass(one, _Permission) for one in view.permission_classes)
        assert [name for name in METHODS if hasattr(getattr(view, name, None), CONFIRMS)] == ["get"]
        found.append(route.pattern.removeprefix(BASE))
    assert sorted(found) == [
        "approvals/queue",
        "budgets",
        "credits",
        "exports/parity",
        "ledger",
        "policies",
    ]


def test_a_condition_is_asked_once_and_never_by_another_request(shop: Shop) -> None:
    other = uuid.uuid4()
    assert read(shop.world.member, f"budgets/{other}").status_code == 404
    with CaptureQueriesContext(connection) as captured:
        assert read(shop.world.admin, "budgets").status_code == 200
        assert read(shop.world.admin, f"budgets/{other}").status_code == 404

    assert [ON_THE_WAY in text for text in statements(captured)][:2] == [True, False]
