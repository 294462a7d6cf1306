"""Integrations over HTTP: a secret is shown once, stored sealed, and opens in its row only."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from governance.integrations.queries import find_caller, read_secret
from governance.models import AuditEntry, Integration, Membership, User
from tests.client import Api
from tests.factories.tenants import World, system_actor
from valdrix.kernel.db import platform_transaction, reading, transaction
from valdrix.kernel.sealing import SealingError

NEW = {"kind": "run_task", "name": "production", "project_id": "shop"}


def create(api: Api, tenant: World, **terms: Any) -> dict[str, Any]:
    response = api.post("integrations", NEW | terms, key=tenant.owner.key)
    assert response.status_code == 201, response.content
    return response.json()


def row(tenant: World, made: dict[str, Any]) -> Integration:
    with reading(tenant.id):
        return Integration.objects.get(tenant_id=tenant.id, pk=made["id"])


def audit(tenant: World) -> list[str]:
    with reading(tenant.id):
        entries = AuditEntry.objects.filter(tenant_id=tenant.id, object_type="integration")
        return list(entries.order_by("pk").values_list("action", flat=True))


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    body = response.json()
    assert body["code"] == code
    return body


def test_a_secret_is_shown_once_and_stored_sealed(api: Api, tenant: World) -> None:
    response = api.post("integrations", NEW, key=tenant.owner.key)
    assert response["Cache-Control"] == "no-store"
    made = response.json()
    assert made["secret"].startswith("vds_")
    assert len(made["secret"]) == 47
    assert made["path"] == f"/api/v1/enforcement/gate/terraform/run-task/{made['id']}"
    assert (made["status"], made["project_id"], made["settings"]) == ("active", "shop", {})
    assert made["person_id"] == tenant.owner.user_id
    for path in ("integrations", f"integrations/{made['id']}"):
        shown = api.get(path, key=tenant.owner.key)
        assert shown.status_code == 200
        assert made["secret"] not in shown.content.decode()
    stored = row(tenant, made)
    assert made["secret"].encode() not in bytes(stored.sealed_secret)
    assert read_secret(stored) == made["secret"]
    with reading(tenant.id):
        (entry,) = AuditEntry.objects.filter(tenant_id=tenant.id, object_id=made["id"])
    assert (entry.action, entry.before) == ("integration.create", None)
    assert made["secret"] not in str(entry.after)


def test_a_sealed_secret_does_not_open_in_another_row(api: Api, tenant: World) -> None:
    first, second = create(api, tenant), create(api, tenant, name="other")
    with transaction(tenant.id):
        Integration.objects.filter(tenant_id=tenant.id, pk=second["id"]).update(
            sealed_secret=bytes(row_in(tenant, first).sealed_secret)
        )
    with pytest.raises(SealingError):
        read_secret(row(tenant, second))


def row_in(tenant: World, made: dict[str, Any]) -> Integration:
    return Integration.objects.get(tenant_id=tenant.id, pk=made["id"])


def test_rotation_replaces_the_secret_at_once(api: Api, tenant: World) -> None:
    made = create(api, tenant)
    rotated = api.post(f"integrations/{made['id']}/rotate", key=tenant.owner.key).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["rotated_at"] is not None
    assert read_secret(row(tenant, made)) == rotated["secret"]
    assert audit(tenant) == ["integration.create", "integration.rotate"]


def test_revocation_forgets_the_secret_and_is_for_ever(api: Api, tenant: World) -> None:
    made = create(api, tenant)
    path = f"integrations/{made['id']}"
    revoked = api.post(f"{path}/revoke", key=tenant.owner.key).json()
    assert revoked["status"] == "revoked"
    assert bytes(row(tenant, made).sealed_secret) == b""
    again = api.post(f"{path}/revoke", key=tenant.owner.key)
    assert (again.status_code, again.json()) == (200, revoked)
    problem(api.post(f"{path}/rotate", key=tenant.owner.key), 409, "integration_not_active")
    assert audit(tenant) == ["integration.create", "integration.revoke"]
    assert find_caller(uuid.UUID(made["id"]), "run_task") is None
    create(api, tenant)  # The name is free again.


def test_a_name_is_used_once_a_kind(api: Api, tenant: World, other_tenant: World) -> None:
    create(api, tenant)
    problem(api.post("integrations", NEW, key=tenant.owner.key), 409, "integration_exists")
    create(api, tenant, kind="cluster")
    create(api, other_tenant)
    assert len(audit(tenant)) == 2


@pytest.mark.parametrize(
    ("terms", "pointer", "code"),
    [
        ({"kind": "telephone"}, "/kind", "invalid_choice"),
        ({"kind": None}, "/kind", "required"),
        ({"name": " "}, "/name", "invalid_value"),
        ({"name": "x" * 201}, "/name", "too_long"),
        ({"name": "a\tb"}, "/name", "invalid_value"),
        ({"project_id": ""}, "/project_id", "invalid_value"),
        ({"person_id": 0}, "/person_id", "out_of_range"),
        ({"person_id": 2**63 - 1}, "/person_id", "not_a_member"),
        ({"settings": []}, "/settings", "invalid_type"),
        ({"settings": {"enviroment": "prod"}}, "/settings/enviroment", "unknown_field"),
        ({"kind": "cluster", "settings": {"cluster": "a b"}}, "/settings/cluster", "invalid_value"),
        ({"kind": "webhook"}, "/settings/url", "required"),
        (
            {"kind": "webhook", "settings": {"url": "http://a.test/"}},
            "/settings/url",
            "invalid_value",
        ),
        ({"secret": "mine"}, "/secret", "unknown_field"),
    ],
)
def test_bad_terms_are_refused_and_write_nothing(
    api: Api, tenant: World, terms: dict[str, Any], pointer: str, code: str
) -> None:
    body = problem(
        api.post("integrations", NEW | terms, key=tenant.owner.key), 422, "invalid_request"
    )
    assert (pointer, code) in {(error["pointer"], error["code"]) for error in body["errors"]}
    assert audit(tenant) == []


def test_settings_are_kept_as_the_kind_has_them(api: Api, tenant: World) -> None:
    assert create(api, tenant, settings={"environment": "prod"})["settings"] == {
        "environment": "prod"
    }
    hook = create(api, tenant, kind="webhook", settings={"url": "https://hooks.test/x"})
    assert hook["settings"] == {"url": "https://hooks.test/x"}


def test_only_owners_of_the_whole_tenant_manage_them(
    api: Api, tenant: World, other_tenant: World
) -> None:
    made = create(api, tenant)
    path = f"integrations/{made['id']}"
    for key in (tenant.member.key, tenant.admin.key):
        problem(api.get("integrations", key=key), 403, "role_missing")
        problem(api.post("integrations", NEW, key=key), 403, "role_missing")
        problem(api.post(f"{path}/rotate", key=key), 403, "role_missing")
        problem(api.post(f"{path}/revoke", key=key), 403, "role_missing")
    for call in (
        api.get(path, key=other_tenant.owner.key),
        api.post(f"{path}/rotate", key=other_tenant.owner.key),
        api.post(f"{path}/revoke", key=other_tenant.owner.key),
    ):
        problem(call, 404, "not_found")
    assert api.get("integrations", key=other_tenant.owner.key).json()["results"] == []
    assert read_secret(row(tenant, made)) == made["secret"]


def test_lists_go_by_kind_and_by_page(api: Api, tenant: World) -> None:
    made = [create(api, tenant, name=f"n{number}")["id"] for number in range(3)]
    cluster = create(api, tenant, kind="cluster")["id"]
    page = api.get("integrations", key=tenant.owner.key, query={"limit": 2}).json()
    assert [item["id"] for item in page["results"]] == [cluster, made[2]]
    rest = api.get(page["next"], key=tenant.owner.key).json()
    assert [item["id"] for item in rest["results"]] == [made[1], made[0]]
    only = api.get("integrations", key=tenant.owner.key, query={"kind": "cluster"}).json()
    assert [item["id"] for item in only["results"]] == [cluster]
    bad = api.get("integrations", key=tenant.owner.key, query={"kind": "x"})
    problem(bad, 422, "invalid_request")


def test_a_caller_is_found_before_the_tenant_is_known(api: Api, tenant: World) -> None:
    made = create(api, tenant)
    caller = find_caller(uuid.UUID(made["id"]), "run_task")
    assert caller is not None
    assert caller.principal.tenant_id == tenant.id
    assert caller.principal.projects == {"shop"}
    assert (caller.principal.role, caller.principal.scopes) == ("member", frozenset())
    assert find_caller(uuid.UUID(made["id"]), "cluster") is None
    assert find_caller(uuid.uuid4(), "run_task") is None


@pytest.mark.parametrize("ending", ["leaves", "is deactivated"])
def test_an_integration_stops_with_its_person(api: Api, tenant: World, ending: str) -> None:
    made = create(api, tenant, person_id=tenant.member.user_id)
    assert find_caller(uuid.UUID(made["id"]), "run_task") is not None
    if ending == "leaves":
        with transaction(tenant.id):
            Membership.objects.filter(tenant_id=tenant.id, user_id=tenant.member.user_id).delete()
    else:
        with platform_transaction():
            User.objects.filter(pk=tenant.member.user_id).update(is_active=False)
    assert find_caller(uuid.UUID(made["id"]), "run_task") is None


def test_without_a_key_no_secret_is_stored(api: Api, tenant: World, settings: Any) -> None:
    settings.SECRET_SEALING_KEYS = ()
    problem(api.post("integrations", NEW, key=tenant.owner.key), 503, "sealing_key_missing")
    assert audit(tenant) == []


def test_use_is_noted_to_the_minute(api: Api, tenant: World) -> None:
    from governance.integrations.operations import note_use

    made = create(api, tenant)
    actor = system_actor(tenant.id)
    for _ in range(2):
        with transaction(tenant.id):
            note_use(actor=actor, integration_id=uuid.UUID(made["id"]))
    assert row(tenant, made).last_used_at == actor.at
