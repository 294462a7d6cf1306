"""Budgets over HTTP: who may do what, what is refused, and what each change leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.models import Account, AccountMonth, DailyCost
from enforcement.models import LedgerEntry
from governance.models import AuditEntry
from tests.client import Api
from tests.factories.tenants import World, issue_key
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

SHOP = {"project_id": "shop", "monthly_limit_usd": "1500.00"}


def rows_of(world: World) -> tuple[int, int, int]:
    """Return how many accounts, audit entries and ledger entries the tenant has."""
    with reading(world.id):
        audits = AuditEntry.objects.filter(object_type="budget").count()
        return Account.objects.count(), audits, LedgerEntry.objects.count()


def make(api: Api, world: World, **changes: Any) -> dict[str, Any]:
    answer = api.post("budgets", {**SHOP, **changes}, key=world.admin.key)
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def bound_key(world: World, role: str, *projects: str) -> str:
    return issue_key(
        world.id, name="bound", role=role, person_id=world.owner.user_id, projects=projects
    )[1]


def test_a_new_budget_has_its_whole_limit_as_headroom(api: Api, tenant: World) -> None:
    budget = make(api, tenant, environment="prod", team="web", basis="run_rate", active=True)
    assert budget | {"id": "", "created_at": ""} == {
        "id": "", "created_at": "", "created_by": f"key:{tenant.admin.key_id}",
        "project_id": "shop", "environment": "prod", "team": "web", "basis": "run_rate",
        "monthly_limit_usd": "1500.0000", "active": True, "posted_usd": "0.0000",
        "pending_usd": "0.0000", "overrun_usd": "0.0000", "headroom_usd": "1500.0000",
        "alerts": [],
    }  # fmt: skip
    read = api.get(f"budgets/{budget['id']}", key=tenant.member.key)
    assert (read.status_code, read.json()) == (200, budget)


def test_creation_is_audited_and_on_the_ledger(api: Api, tenant: World) -> None:
    budget = make(api, tenant)
    with reading(tenant.id):
        audit = AuditEntry.objects.get(action="budget.create")
        entry = LedgerEntry.objects.get(event="budget_created")
    assert (audit.actor, audit.before, audit.object_id) == (
        f"key:{tenant.admin.key_id}", None, budget["id"],
    )  # fmt: skip
    assert audit.after["monthly_limit_usd"] == "1500.0000"
    assert audit.address == "127.0.0.1"
    assert (entry.amount_usd, entry.project_id) == (Decimal("1500.0000"), "shop")
    assert (entry.subject_type, entry.subject_id) == ("budget", budget["id"])
    assert entry.details_sha256 is not None


def test_what_is_taken_of_a_month_is_shown_and_headroom_never_below_zero(
    api: Api, tenant: World
) -> None:
    budget = make(api, tenant)
    today = datetime.now(UTC).date()
    month = today.replace(day=1)
    with transaction(tenant.id):
        Account.objects.filter(id=budget["id"]).update(pending_usd="100.0000")
        for first, posted in ((month, "900.0000"), (month - timedelta(days=1), "77.0000")):
            AccountMonth.objects.create(
                account_id=budget["id"], tenant_id=tenant.id, month=first.replace(day=1),
                posted_usd=posted, overrun_usd="25.5000",
            )  # fmt: skip
    shown = api.get(f"budgets/{budget['id']}", key=tenant.key).json()
    taken = {name: shown[f"{name}_usd"] for name in ("posted", "pending", "overrun", "headroom")}
    assert taken == {
        "posted": "900.0000", "pending": "100.0000", "overrun": "25.5000", "headroom": "474.5000",
    }  # fmt: skip
    lowered = api.patch(
        f"budgets/{budget['id']}", {"monthly_limit_usd": "10"}, key=tenant.admin.key
    )
    assert (lowered.status_code, lowered.json()["headroom_usd"]) == (200, "0.0000")


def test_a_budget_on_actuals_shows_what_the_project_really_spent(api: Api, tenant: World) -> None:
    budget = make(api, tenant, basis="actuals")
    today = datetime.now(UTC).date()
    with transaction(tenant.id):
        for project, date, amount in (
            ("shop", today, "12.5000"),
            ("shop", today.replace(day=1) - timedelta(days=1), "500.0000"),
            ("other", today, "900.0000"),
        ):
            DailyCost.objects.create(
                tenant_id=tenant.id, project_id=project, date=date, amount_usd=amount,
                is_final=True, ingested_at=datetime.now(UTC),
            )  # fmt: skip
    shown = api.get("budgets", key=tenant.key).json()["results"]
    assert [(one["id"], one["posted_usd"], one["headroom_usd"]) for one in shown] == [
        (budget["id"], "12.5000", "1487.5000")
    ]


def test_a_change_is_shown_audited_and_on_the_ledger(api: Api, tenant: World) -> None:
    budget = make(api, tenant)
    answer = api.patch(
        f"budgets/{budget['id']}",
        {"monthly_limit_usd": 2000, "active": False, "basis": "actuals"},
        key=tenant.admin.key,
    )
    changed = {"monthly_limit_usd": "2000.0000", "active": False, "basis": "actuals"}
    assert answer.status_code == 200
    assert answer.json() == budget | changed | {"headroom_usd": "2000.0000"}
    with reading(tenant.id):
        audit = AuditEntry.objects.get(action="budget.change")
        entry = LedgerEntry.objects.get(event="budget_changed")
    assert audit.before["monthly_limit_usd"] == "1500.0000"
    assert audit.after["active"] is False
    assert entry.amount_usd == Decimal("2000.0000")


def test_a_change_to_the_same_values_writes_nothing(api: Api, tenant: World) -> None:
    budget = make(api, tenant)
    before = rows_of(tenant)
    answer = api.patch(
        f"budgets/{budget['id']}", {"monthly_limit_usd": "1500", "active": True},
        key=tenant.admin.key,
    )  # fmt: skip
    assert (answer.status_code, answer.json()) == (200, budget)
    assert rows_of(tenant) == before


@pytest.mark.parametrize(
    "scope",
    [{}, {"environment": "prod"}, {"team": "web"}, {"environment": "nonprod", "team": "web"}],
)
def test_the_same_scope_twice_is_refused(api: Api, tenant: World, scope: dict[str, str]) -> None:
    make(api, tenant, **scope)
    before = rows_of(tenant)
    again = api.post("budgets", {**SHOP, **scope, "active": False}, key=tenant.owner.key)
    assert (again.status_code, again.json()["code"]) == (409, "budget_exists")
    assert rows_of(tenant) == before


def test_two_admins_at_once_open_one_budget(api: Api, tenant: World, run_in_threads: Any) -> None:
    answers = run_in_threads(6, lambda _: Api().post("budgets", SHOP, key=tenant.admin.key))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201, 409, 409, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {
        "budget_exists"
    }
    assert rows_of(tenant) == (1, 1, 1)


def test_members_read_and_only_admins_write(api: Api, tenant: World) -> None:
    budget = make(api, tenant)
    before = rows_of(tenant)
    posted = api.post("budgets", SHOP | {"project_id": "x"}, key=tenant.member.key)
    patched = api.patch(f"budgets/{budget['id']}", {"active": False}, key=tenant.member.key)
    for refused in (posted, patched):
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    assert api.get("budgets").status_code == 401
    assert rows_of(tenant) == before


def test_another_tenants_budget_is_not_there(api: Api, tenant: World, other_tenant: World) -> None:
    budget = make(api, tenant)
    before = rows_of(tenant)
    for answer in (
        api.get(f"budgets/{budget['id']}", key=other_tenant.owner.key),
        api.patch(f"budgets/{budget['id']}", {"active": False}, key=other_tenant.owner.key),
        api.get(f"budgets/{new_id()}", key=tenant.owner.key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert api.get("budgets", key=other_tenant.owner.key).json() == {"results": [], "next": None}
    assert rows_of(tenant) == before


def test_a_bound_credential_has_its_own_projects_only(api: Api, tenant: World) -> None:
    mine, other = make(api, tenant), make(api, tenant, project_id="other")
    key = bound_key(tenant, "admin", "shop")
    assert [one["id"] for one in api.get("budgets", key=key).json()["results"]] == [mine["id"]]
    assert api.get(f"budgets/{mine['id']}", key=key).status_code == 200
    before = rows_of(tenant)
    for answer in (
        api.get(f"budgets/{other['id']}", key=key),
        api.patch(f"budgets/{other['id']}", {"active": False}, key=key),
        api.post("budgets", SHOP | {"project_id": "third"}, key=key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "project_not_allowed")
    assert rows_of(tenant) == before


def test_pages_hold_every_budget_once_in_order(api: Api, tenant: World) -> None:
    made = [make(api, tenant, project_id=f"p{number}")["id"] for number in range(5)]
    seen, path = [], "budgets?limit=2"
    while path:
        page = api.get(path, key=tenant.key).json()
        seen += [one["id"] for one in page["results"]]
        path = page["next"]
    assert seen == made


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"project_id": "shop"}, "/monthly_limit_usd"),
        ({"monthly_limit_usd": "1"}, "/project_id"),
        (SHOP | {"project_id": " "}, "/project_id"),
        (SHOP | {"project_id": "x" * 201}, "/project_id"),
        (SHOP | {"project_id": 7}, "/project_id"),
        (SHOP | {"environment": "staging"}, "/environment"),
        (SHOP | {"environment": "PROD"}, "/environment"),
        (SHOP | {"team": ""}, "/team"),
        (SHOP | {"basis": "guess"}, "/basis"),
        (SHOP | {"active": "true"}, "/active"),
        (SHOP | {"currency": "EUR"}, "/currency"),
        (SHOP | {"monthly_limit_usd": None}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "-0.01"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "1e3"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "1_000"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "+5"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": " 5"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "٥"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "1.00001"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "1000000000000.01"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "NaN"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": "Infinity"}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": True}, "/monthly_limit_usd"),
        (SHOP | {"monthly_limit_usd": ["5"]}, "/monthly_limit_usd"),
        ([], ""),
    ],
)
def test_a_bad_budget_names_the_field_and_changes_nothing(
    api: Api, tenant: World, body: Any, pointer: str
) -> None:
    answer = api.post("budgets", body, key=tenant.admin.key)
    assert answer.status_code == 422, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert rows_of(tenant) == (0, 0, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"project_id":"shop","monthly_limit_usd":1e400}', 422),
        (b'{"project_id":"shop","monthly_limit_usd":1e999999}', 422),
        (b'{"project_id":"shop","monthly_limit_usd":NaN}', 400),
        (b'{"project_id":"shop","project_id":"x","monthly_limit_usd":1}', 400),
        (b'{"project_id":"sh\\u0000op","monthly_limit_usd":1}', 400),
        (b'{"project_id":"\\ud800","monthly_limit_usd":1}', 400),
        (b'{"project_id":"shop"', 400),
        (b"[" * 100 + b"]" * 100, 400),
    ],
)
def test_a_body_that_is_not_strict_json_changes_nothing(
    api: Api, tenant: World, body: bytes, status: int
) -> None:
    answer = api.post("budgets", body, key=tenant.admin.key)
    assert answer.status_code == status, answer.content
    assert rows_of(tenant) == (0, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"monthly_limit_usd": None},
        {"active": None},
        {"basis": None},
        {"monthly_limit_usd": "-1"},
        {"project_id": "other"},
        {"environment": "prod", "active": False},
        {"active": 0},
    ],
)
def test_a_bad_change_changes_nothing(api: Api, tenant: World, body: Any) -> None:
    budget = make(api, tenant)
    before = rows_of(tenant)
    answer = api.patch(f"budgets/{budget['id']}", body, key=tenant.admin.key)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert rows_of(tenant) == before
    assert api.get(f"budgets/{budget['id']}", key=tenant.key).json() == budget


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=!", "cursor=Zm9v", "page=2"])
def test_a_bad_query_is_refused(api: Api, tenant: World, query: str) -> None:
    assert api.get(f"budgets?{query}", key=tenant.key).status_code == 422
