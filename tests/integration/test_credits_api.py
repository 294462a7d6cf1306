"""Credit grants over HTTP: granted, shown, voided, and what each of it leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.models import Account
from enforcement.ledger.verification import verify_ledger
from enforcement.models import LedgerEntry
from governance.models import AuditEntry
from tests.client import Api
from tests.factories.tenants import World, issue_key
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

GRANT = {"pool": "reserved", "total_amount_usd": "500.00", "reason": "committed spend"}
AMOUNTS = ("total_amount_usd", "remaining_amount_usd", "reserved_amount_usd", "consumed_amount_usd")


def rows_of(world: World) -> tuple[int, int, int]:
    """Return how many accounts, audit entries of grants and ledger entries the tenant has."""
    with reading(world.id):
        audits = AuditEntry.objects.filter(object_type="credit_grant").count()
        return Account.objects.count(), audits, LedgerEntry.objects.count()


def make(api: Api, world: World, **changes: Any) -> dict[str, Any]:
    answer = api.post("credits", {**GRANT, **changes}, key=world.admin.key)
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def bound_key(world: World, role: str, *projects: str) -> str:
    return issue_key(
        world.id, name="bound", role=role, person_id=world.owner.user_id, projects=projects
    )[1]


def in_hours(hours: int) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_new_grant_remains_as_a_whole(api: Api, tenant: World) -> None:
    expiry = in_hours(48)
    grant = make(api, tenant, pool="emergency", project_id="shop", expires_at=expiry, priority=0)
    assert grant | {"id": "", "created_at": ""} == {
        "id": "", "created_at": "", "created_by": f"key:{tenant.admin.key_id}",
        "pool": "emergency", "project_id": "shop", "status": "active", "priority": 0,
        "total_amount_usd": "500.0000", "remaining_amount_usd": "500.0000",
        "reserved_amount_usd": "0.0000", "consumed_amount_usd": "0.0000",
        "headroom_usd": "500.0000", "reason": "committed spend", "expires_at": expiry,
        "voided_at": None,
    }  # fmt: skip
    read = api.get(f"credits/{grant['id']}", key=tenant.member.key)
    assert (read.status_code, read.json()) == (200, grant)


def test_the_defaults_are_a_tenant_wide_grant_that_does_not_expire(api: Api, tenant: World) -> None:
    grant = make(api, tenant)
    assert (grant["project_id"], grant["expires_at"], grant["priority"]) == (None, None, 100)


def test_granting_is_audited_and_on_the_ledger_without_its_reason(api: Api, tenant: World) -> None:
    grant = make(api, tenant, project_id="shop")
    with reading(tenant.id):
        audit = AuditEntry.objects.get(action="credit.grant")
        entry = LedgerEntry.objects.get(event="credit_granted")
    assert (audit.object_id, audit.after["reason"]) == (grant["id"], "committed spend")
    assert (entry.amount_usd, entry.subject_id, entry.project_id) == (
        Decimal("500.0000"), grant["id"], "shop",
    )  # fmt: skip
    assert "committed spend" not in entry.canonical


def test_a_void_grant_keeps_its_amounts_and_offers_nothing(api: Api, tenant: World) -> None:
    grant = make(api, tenant)
    with transaction(tenant.id):
        Account.objects.filter(id=grant["id"]).update(
            remaining_usd="350.0000", reserved_usd="100.0000", consumed_usd="50.0000"
        )
    answer = api.post(
        f"credits/{grant['id']}/void", {"reason": "contract ended"}, key=tenant.owner.key
    )
    voided = answer.json()
    assert (answer.status_code, voided["status"], voided["headroom_usd"]) == (
        200, "voided", "0.0000",
    )  # fmt: skip
    assert [voided[name] for name in AMOUNTS] == [
        "500.0000", "350.0000", "100.0000", "50.0000",
    ]  # fmt: skip
    with reading(tenant.id):
        audit = AuditEntry.objects.get(action="credit.void")
        entry = LedgerEntry.objects.get(event="credit_voided")
    assert (audit.before["voided_at"], audit.after["void_reason"]) == (None, "contract ended")
    assert entry.amount_usd == Decimal("350.0000")


def test_the_gate_draws_on_a_grant_until_it_is_voided(api: Api, tenant: World) -> None:
    document = {
        "environments": {"nonprod": ["dev"]},
        "thresholds": {"nonprod": {"require_approval_from_usd": "5000.00"}},
    }
    body = {"policy_document": document, "base_version": 0}
    assert api.put("policies", body, key=tenant.admin.key).status_code == 200
    budget = {"project_id": "shop", "monthly_limit_usd": "100.00"}
    assert api.post("budgets", budget, key=tenant.admin.key).status_code == 201
    grant = make(api, tenant)
    assert ask(api, tenant, "150.00") == ("ALLOW_WITH_CREDITS", "50.0000")
    drawn = api.get(f"credits/{grant['id']}", key=tenant.key).json()
    assert [drawn[name] for name in AMOUNTS] == ["500.0000", "450.0000", "50.0000", "0.0000"]
    voided = api.post(f"credits/{grant['id']}/void", {}, key=tenant.admin.key).json()
    assert [voided[name] for name in AMOUNTS] == [drawn[name] for name in AMOUNTS]
    assert ask(api, tenant, "1.00") == ("DENY", "0.0000")
    (shown,) = api.get("budgets", key=tenant.key).json()["results"]
    assert (shown["pending_usd"], shown["headroom_usd"]) == ("100.0000", "0.0000")
    ledger = verify_ledger(tenant.id)
    assert (ledger.status, ledger.entries > 5) == ("intact", True)


def ask(api: Api, world: World, delta_usd: str) -> tuple[str, str]:
    """Ask the gate for a change; return its decision and what it took of reserved credits."""
    body = {
        "project_id": "shop", "environment": "dev", "action": "terraform.apply",
        "resource_reference": f"module.of-{delta_usd}", "estimated_monthly_delta_usd": delta_usd,
        "idempotency_key": f"key-{delta_usd}",
    }  # fmt: skip
    answer = api.post("gate/terraform", body, key=world.member.key)
    assert answer.status_code == 200, answer.content
    return answer.json()["decision"], answer.json()["reserved_reserved_credit_usd"]


def test_a_grant_is_voided_once(api: Api, tenant: World) -> None:
    grant = make(api, tenant)
    assert api.post(f"credits/{grant['id']}/void", key=tenant.admin.key).status_code == 200
    before = rows_of(tenant)
    again = api.post(f"credits/{grant['id']}/void", {}, key=tenant.admin.key)
    assert (again.status_code, again.json()["code"]) == (409, "grant_not_voidable")
    assert rows_of(tenant) == before


def test_two_admins_at_once_void_a_grant_once(api: Api, tenant: World, run_in_threads: Any) -> None:
    path = f"credits/{make(api, tenant)['id']}/void"
    answers = run_in_threads(5, lambda _: Api().post(path, {}, key=tenant.admin.key))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert rows_of(tenant) == (1, 2, 2)


def test_the_status_says_why_a_grant_offers_nothing(api: Api, tenant: World) -> None:
    spent, expired = make(api, tenant)["id"], make(api, tenant, expires_at=in_hours(1))["id"]
    with transaction(tenant.id):
        rows = Account.objects.filter(id=spent)
        rows.update(remaining_usd=0, reserved_usd=0, consumed_usd="500.0000")
        past = datetime.now(UTC) - timedelta(seconds=1)
        Account.objects.filter(id=expired).update(expires_at=past)
    shown = {one["id"]: one for one in api.get("credits", key=tenant.key).json()["results"]}
    assert (shown[spent]["status"], shown[spent]["headroom_usd"]) == ("exhausted", "0.0000")
    assert (shown[expired]["status"], shown[expired]["headroom_usd"]) == ("expired", "0.0000")
    assert shown[expired]["remaining_amount_usd"] == "500.0000"


def test_members_read_and_only_admins_write(api: Api, tenant: World) -> None:
    grant = make(api, tenant)
    before = rows_of(tenant)
    for refused in (
        api.post("credits", GRANT, key=tenant.member.key),
        api.post(f"credits/{grant['id']}/void", {}, key=tenant.member.key),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    assert api.get("credits").status_code == 401
    assert api.get("credits", key=tenant.member.key).status_code == 200
    assert rows_of(tenant) == before


def test_another_tenants_grant_is_not_there(api: Api, tenant: World, other_tenant: World) -> None:
    grant = make(api, tenant)
    before = rows_of(tenant)
    for answer in (
        api.get(f"credits/{grant['id']}", key=other_tenant.owner.key),
        api.post(f"credits/{grant['id']}/void", {}, key=other_tenant.owner.key),
        api.post(f"credits/{new_id()}/void", {}, key=tenant.owner.key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert api.get("credits", key=other_tenant.owner.key).json() == {"results": [], "next": None}
    assert rows_of(tenant) == before


def test_a_budget_is_no_grant_and_a_grant_no_budget(api: Api, tenant: World) -> None:
    budget = api.post(
        "budgets", {"project_id": "shop", "monthly_limit_usd": "1"}, key=tenant.admin.key
    ).json()
    grant = make(api, tenant)
    assert api.get(f"credits/{budget['id']}", key=tenant.key).status_code == 404
    assert api.get(f"budgets/{grant['id']}", key=tenant.key).status_code == 404
    assert api.post(f"credits/{budget['id']}/void", key=tenant.admin.key).status_code == 404


def test_a_bound_credential_sees_what_it_may_draw_on(api: Api, tenant: World) -> None:
    mine = make(api, tenant, project_id="shop")["id"]
    wide, other = make(api, tenant)["id"], make(api, tenant, project_id="other")["id"]
    key = bound_key(tenant, "admin", "shop")
    shown = [one["id"] for one in api.get("credits", key=key).json()["results"]]
    assert shown == [mine, wide]
    assert api.get(f"credits/{wide}", key=key).status_code == 200
    before = rows_of(tenant)
    for answer in (
        api.get(f"credits/{other}", key=key),
        api.post(f"credits/{other}/void", {}, key=key),
        api.post(f"credits/{wide}/void", {}, key=key),
        api.post("credits", GRANT, key=key),
        api.post("credits", GRANT | {"project_id": "other"}, key=key),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "project_not_allowed")
    assert rows_of(tenant) == before
    assert api.post(f"credits/{mine}/void", {}, key=key).status_code == 200


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"pool": None}, "/pool"),
        ({"pool": "gold"}, "/pool"),
        ({"total_amount_usd": None}, "/total_amount_usd"),
        ({"total_amount_usd": "0"}, "/total_amount_usd"),
        ({"total_amount_usd": "-0.00"}, "/total_amount_usd"),
        ({"total_amount_usd": "-5"}, "/total_amount_usd"),
        ({"total_amount_usd": "1e2"}, "/total_amount_usd"),
        ({"total_amount_usd": "0.00001"}, "/total_amount_usd"),
        ({"total_amount_usd": "1000000000001"}, "/total_amount_usd"),
        ({"reason": None}, "/reason"),
        ({"reason": "  "}, "/reason"),
        ({"reason": "x" * 2001}, "/reason"),
        ({"priority": 1001}, "/priority"),
        ({"priority": -1}, "/priority"),
        ({"priority": "1"}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2030-01-01"}, "/expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
        ({"project_id": ""}, "/project_id"),
        ({"amount": "5"}, "/amount"),
        ({"remaining_amount_usd": "5"}, "/remaining_amount_usd"),
    ],
)
def test_a_bad_grant_names_the_field_and_changes_nothing(
    api: Api, tenant: World, change: dict[str, Any], pointer: str
) -> None:
    answer = api.post("credits", GRANT | change, key=tenant.admin.key)
    assert answer.status_code == 422, answer.content
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert rows_of(tenant) == (0, 0, 0)


@pytest.mark.parametrize("body", [{"reason": ""}, {"why": "x"}, [], {"reason": 5}])
def test_a_bad_void_changes_nothing(api: Api, tenant: World, body: Any) -> None:
    grant = make(api, tenant)
    before = rows_of(tenant)
    answer = api.post(f"credits/{grant['id']}/void", body, key=tenant.admin.key)
    assert answer.status_code == 422
    assert rows_of(tenant) == before
    assert api.get(f"credits/{grant['id']}", key=tenant.key).json()["status"] == "active"
