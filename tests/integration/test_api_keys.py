"""API keys over HTTP: issued once, checked always, bounded by their issuer and their person."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from governance.identity.domain import read_key_text
from governance.identity.queries import find_key_principal
from governance.models import ApiKey, AuditEntry, Membership, User
from tests.client import Api
from tests.factories.tenants import World, issue_key
from valdrix.kernel.db import platform_transaction, reading, transaction

NEW = {"name": "ci", "role": "member"}
A_YEAR_ON = (datetime.now(UTC) + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rows(tenant: World) -> tuple[list[dict[str, Any]], int]:
    with reading(tenant.id):
        keys = ApiKey.objects.filter(tenant_id=tenant.id).order_by("pk")
        found = [{**row, "digest": bytes(row["digest"])} for row in keys.values()]
        return (
            [{k: v for k, v in row.items() if k != "last_used_at"} for row in found],
            AuditEntry.objects.filter(tenant_id=tenant.id).count(),
        )


def issue(api: Api, tenant: World, **terms: Any) -> dict[str, Any]:
    response = api.post("api-keys", NEW | terms, key=tenant.owner.key)
    assert response.status_code == 201, response.content
    return response.json()


def owner_key(tenant: World, **terms: Any) -> tuple[uuid.UUID, str]:
    person_id = tenant.owner.user_id
    return issue_key(tenant.id, name="more", role="owner", person_id=person_id, **terms)


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    body = response.json()
    assert (body["status"], body["code"]) == (status, code), body
    return body


def test_issued_key_is_shown_once_and_works(api: Api, tenant: World) -> None:
    response = api.post(
        "api-keys",
        NEW | {"role": "owner", "scopes": ["approve"], "expires_at": A_YEAR_ON},
        key=tenant.owner.key,
    )
    assert response.status_code == 201
    assert response["Cache-Control"] == "no-store"
    made = response.json()
    assert made["key"].startswith(made["prefix"] + "_")
    assert made["person_id"] == tenant.owner.user_id
    assert made["created_by"] == f"key:{tenant.owner.key_id}"
    assert (made["status"], made["projects"], made["expires_at"]) == ("active", None, A_YEAR_ON)
    shown = api.get(f"api-keys/{made['id']}", key=made["key"])
    assert shown.status_code == 200
    assert "key" not in shown.json()
    assert made["key"] not in api.get("api-keys", key=tenant.owner.key).content.decode()
    with reading(tenant.id):
        entry = AuditEntry.objects.get(tenant_id=tenant.id, object_id=made["id"])
        assert (entry.action, entry.actor, entry.address, entry.before) == (
            "api-key.issue",
            f"key:{tenant.owner.key_id}",
            "127.0.0.1",
            None,
        )
        assert entry.after["name"] == "ci"
        assert made["key"].split("_")[2] not in str(entry.after)
        stored = ApiKey.objects.filter(pk=made["id"]).values().get()
        assert made["key"].split("_")[2] not in str(stored)


def test_rotation_ends_the_old_text_at_once(api: Api, tenant: World) -> None:
    made = issue(api, tenant, role="owner")
    rotated = api.post(f"api-keys/{made['id']}/rotate", key=tenant.owner.key)
    assert (rotated.status_code, rotated["Cache-Control"]) == (200, "no-store")
    assert rotated.json()["id"] == made["id"]
    assert rotated.json()["key"] != made["key"]
    problem(api.get("api-keys", key=made["key"]), 401, "authentication_failed")
    assert api.get("api-keys", key=rotated.json()["key"]).status_code == 200


def test_two_rotations_at_once_leave_one_valid_text(
    api: Api, tenant: World, run_in_threads: Callable[..., list[Any]]
) -> None:
    made = issue(api, tenant, role="owner")
    path = f"api-keys/{made['id']}/rotate"
    answers = run_in_threads(6, lambda _: Api().post(path, key=tenant.owner.key))
    texts = [answer.json()["key"] for answer in answers if answer.status_code == 200]
    assert texts
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 409, "api_key_not_active")
    valid = [text for text in texts if api.get("api-keys", key=text).status_code == 200]
    assert len(valid) == 1


def test_revocation_is_for_ever_and_repeatable(api: Api, tenant: World) -> None:
    made = issue(api, tenant, role="owner")
    path = f"api-keys/{made['id']}"
    first = api.post(f"{path}/revoke", key=tenant.owner.key)
    assert (first.status_code, first.json()["status"]) == (200, "revoked")
    problem(api.get("api-keys", key=made["key"]), 401, "authentication_failed")
    before = rows(tenant)
    again = api.post(f"{path}/revoke", {}, key=tenant.owner.key)
    assert again.json()["revoked_at"] == first.json()["revoked_at"]
    problem(api.post(f"{path}/rotate", key=tenant.owner.key), 409, "api_key_not_active")
    assert rows(tenant) == before


def test_an_expired_key_can_neither_be_used_nor_rotated(api: Api, tenant: World) -> None:
    key_id, text = owner_key(tenant)
    with transaction(tenant.id):
        ApiKey.objects.filter(pk=key_id).update(expires_at=datetime.now(UTC))
    problem(api.get("api-keys", key=text), 401, "authentication_failed")
    shown = api.get(f"api-keys/{key_id}", key=tenant.owner.key).json()
    assert shown["status"] == "expired"
    before = rows(tenant)
    problem(api.post(f"api-keys/{key_id}/rotate", key=tenant.owner.key), 409, "api_key_not_active")
    assert rows(tenant) == before


def test_list_pages_newest_first(api: Api, tenant: World) -> None:
    made = [issue(api, tenant, name=f"k{number}")["id"] for number in range(3)]
    path, seen = "api-keys?limit=2", []
    while path:
        page = api.get(path, key=tenant.owner.key).json()
        seen += [key["id"] for key in page["results"]]
        path = page["next"]
    assert seen[:3] == made[::-1]
    assert len(seen) == len(set(seen)) == 6
    assert sorted(seen, reverse=True) == seen


@pytest.mark.parametrize("who", ["member", "admin"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api-keys"),
        ("POST", "api-keys"),
        ("GET", "api-keys/{id}"),
        ("POST", "api-keys/{id}/rotate"),
        ("POST", "api-keys/{id}/revoke"),
        ("OPTIONS", "api-keys"),
    ],
)
def test_only_owners_manage_keys(api: Api, tenant: World, who: str, method: str, path: str) -> None:
    before = rows(tenant)
    key = getattr(tenant, who).key
    path = path.format(id=tenant.owner.key_id)
    problem(api.send(method, path, NEW, key=key), 403, "role_missing")
    problem(api.send(method, path, NEW), 401, "not_authenticated")
    assert rows(tenant) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "{id}"), ("POST", "{id}/rotate"), ("POST", "{id}/revoke")],
)
def test_another_tenants_key_is_not_found(
    api: Api, tenant: World, other_tenant: World, method: str, path: str
) -> None:
    before = rows(other_tenant)
    foreign = "api-keys/" + path.format(id=other_tenant.member.key_id)
    nothing = "api-keys/" + path.format(id=uuid.uuid4())
    first = problem(api.send(method, foreign, key=tenant.owner.key), 404, "not_found")
    second = problem(api.send(method, nothing, key=tenant.owner.key), 404, "not_found")
    first.pop("request_id")
    second.pop("request_id")
    assert first == second
    assert rows(other_tenant) == before


@pytest.mark.parametrize(
    "key_id", ["1" * 5000, "00000000-0000-0000-0000-00000000000g", "%00", "%ED%A0%80", "x", "-1"]
)
def test_an_id_that_is_none_is_not_found(api: Api, tenant: World, key_id: str) -> None:
    for path in (f"api-keys/{key_id}", f"api-keys/{key_id}/rotate"):
        problem(api.post(path, {}, key=tenant.owner.key), 404, "not_found")


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"name": None}, "/name", "required"),
    ({"name": 1}, "/name", "invalid_type"),
    ({"name": " "}, "/name", "invalid_value"),
    ({"name": "a\nb"}, "/name", "invalid_value"),
    ({"name": "n" * 201}, "/name", "too_long"),
    ({"role": "root"}, "/role", "invalid_choice"),
    ({"role": ["owner"]}, "/role", "invalid_choice"),
    ({"scopes": "approve"}, "/scopes", "invalid_type"),
    ({"scopes": [1]}, "/scopes", "invalid_type"),
    ({"scopes": ["admin"]}, "/scopes", "invalid_choice"),
    ({"projects": {"shop": True}}, "/projects", "invalid_type"),
    ({"projects": ["\x07"]}, "/projects", "invalid_value"),
    ({"projects": ["p" * 201]}, "/projects", "invalid_value"),
    ({"projects": ["p"] * 101}, "/projects", "too_long"),
    ({"person_id": "1"}, "/person_id", "invalid_type"),
    ({"person_id": True}, "/person_id", "invalid_type"),
    ({"person_id": 0}, "/person_id", "out_of_range"),
    ({"person_id": 10**300}, "/person_id", "out_of_range"),
    ({"person_id": 2**63 - 1}, "/person_id", "not_a_member"),
    ({"expires_at": "tomorrow"}, "/expires_at", "invalid_value"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "out_of_range"),
    ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at", "invalid_value"),
    ({"expires_at": 1}, "/expires_at", "invalid_value"),
    ({"key": "vdx_mine"}, "/key", "unknown_field"),
    ({"tenant_id": "x"}, "/tenant_id", "unknown_field"),
]


@pytest.mark.parametrize(("change", "pointer", "code"), BAD_FIELDS)
def test_a_wrong_field_is_named_and_nothing_is_written(
    api: Api, tenant: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    before = rows(tenant)
    body = problem(api.post("api-keys", NEW | change, key=tenant.owner.key), 422, "invalid_request")
    assert [(error["pointer"], error["code"]) for error in body["errors"]] == [(pointer, code)]
    assert rows(tenant) == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"name": "a\\u0000b", "role": "member"}',
        b'{"name": "\\ud800", "role": "member"}',
        b'{"name": "a", "name": "b", "role": "member"}',
        b'{"name": "\xff", "role": "member"}',
        b'{"person_id": NaN}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_not_strict_json_is_400(api: Api, tenant: World, body: bytes) -> None:
    before = rows(tenant)
    problem(api.post("api-keys", body, key=tenant.owner.key), 400, "malformed_json")
    assert rows(tenant) == before


@pytest.mark.parametrize("body", [[], "x", 1, None, True])
def test_a_body_that_is_no_object_is_422(api: Api, tenant: World, body: Any) -> None:
    before = rows(tenant)
    sent = b"null" if body is None else body
    response = api.post("api-keys", sent, key=tenant.owner.key)
    assert problem(response, 422, "invalid_request")["errors"][0]["pointer"] == ""
    for action in ("rotate", "revoke"):
        path = f"api-keys/{tenant.member.key_id}/{action}"
        if body != []:
            problem(api.post(path, sent, key=tenant.owner.key), 422, "invalid_request")
        problem(api.post(path, {"force": True}, key=tenant.owner.key), 422, "invalid_request")
    assert rows(tenant) == before


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e1",
        "limit=٣",
        "limit=" + "9" * 5000,
        "cursor=",
        "cursor=%00",
        "cursor=x",
        "cursor=bm8=",
        "cursor=" + "A" * 5000,
        "cursor=w6k=",
        "offset=1",
        "limit=1&limit=2",
    ],
)
@pytest.mark.parametrize("path", ["api-keys", "members", "audit"])
def test_a_wrong_page_is_422(api: Api, tenant: World, path: str, query: str) -> None:
    response = api.get(f"{path}?{query}", key=tenant.owner.key)
    assert response.status_code == 422, response.content
    assert response.json()["code"] in {"invalid_cursor", "invalid_request"}


def test_a_foreign_person_looks_like_nobody(api: Api, tenant: World, other_tenant: World) -> None:
    before = rows(tenant)
    answers = []
    for person_id in (other_tenant.owner.user_id, 2**62):
        body = problem(
            api.post("api-keys", NEW | {"person_id": person_id}, key=tenant.owner.key),
            422,
            "invalid_request",
        )
        answers.append(body["errors"])
    assert answers[0] == answers[1]
    assert rows(tenant) == before


def test_a_key_cannot_exceed_its_person(api: Api, tenant: World) -> None:
    before = rows(tenant)
    body = problem(
        api.post(
            "api-keys",
            NEW | {"role": "admin", "person_id": tenant.member.user_id},
            key=tenant.owner.key,
        ),
        422,
        "invalid_request",
    )
    assert body["errors"][0]["code"] == "above_person"
    assert rows(tenant) == before


def test_a_key_cannot_exceed_its_issuer(api: Api, tenant: World) -> None:
    _, plain = owner_key(tenant)
    _, bound = owner_key(tenant, projects=["shop"])
    before = rows(tenant)
    problem(api.post("api-keys", NEW | {"scopes": ["approve"]}, key=plain), 403, "scope_missing")
    problem(api.post(f"api-keys/{tenant.owner.key_id}/rotate", key=plain), 403, "scope_missing")
    for method, path in (("POST", "api-keys"), ("GET", "api-keys"), ("GET", "members")):
        problem(api.send(method, path, NEW, key=bound), 403, "project_not_allowed")
    assert rows(tenant) == before


def test_a_key_that_approves_as_another_person_is_neither_issued_nor_rotated(
    api: Api, tenant: World
) -> None:
    """Whoever is shown such a key could ask for a change and approve it as somebody else."""
    before = rows(tenant)
    for person in (tenant.admin, tenant.member):
        terms = {"role": person.role, "scopes": ["approve"], "person_id": person.user_id}
        response = api.post("api-keys", NEW | terms, key=tenant.owner.key)
        problem(response, 403, "approve_scope_of_another")
    path = f"api-keys/{tenant.admin.key_id}"
    rotated = api.post(f"{path}/rotate", key=tenant.owner.key)
    problem(rotated, 403, "approve_scope_of_another")
    assert rows(tenant) == before
    assert api.get("decisions", key=tenant.admin.key).status_code == 200, "the old text still works"

    plain = issue(api, tenant, person_id=tenant.member.user_id)
    assert api.post(f"api-keys/{plain['id']}/rotate", key=tenant.owner.key).status_code == 200
    mine = issue(api, tenant, role="owner", scopes=["approve"])
    assert api.post(f"api-keys/{mine['id']}/rotate", key=tenant.owner.key).status_code == 200
    assert api.post(f"{path}/revoke", key=tenant.owner.key).json()["status"] == "revoked"


def test_the_command_issues_what_only_a_person_themselves_may_take(
    api: Api, tenant: World, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = {
        "tenant": tenant.slug,
        "person": tenant.admin.username,
        "name": "chat",
        "role": "admin",
    }
    call_command("issue_api_key", **terms, scope=["approve"], project=["shop"])
    key = read_key_text(capsys.readouterr().out.removeprefix("api key: ").strip())
    assert key is not None
    principal = find_key_principal(key)
    assert principal is not None
    assert (principal.person_id, principal.role) == (tenant.admin.user_id, "admin")
    assert (principal.scopes, principal.projects) == ({"approve"}, {"shop"})
    with reading(tenant.id):
        assert AuditEntry.objects.filter(actor="system:issue-api-key").count() == 1

    before = rows(tenant)
    for change in ({"person": "nobody"}, {"role": "owner"}, {"name": " "}):
        with pytest.raises(SystemExit) as refused:
            call_command("issue_api_key", **{**terms, **change})
        assert refused.value.code == 1
    with pytest.raises(CommandError) as wrong:
        call_command("issue_api_key", **{**terms, "tenant": "no-such-tenant"})
    assert wrong.value.returncode == 2
    assert rows(tenant) == before


def test_the_membership_bounds_a_key_for_as_long_as_it_lives(api: Api, tenant: World) -> None:
    made = issue(api, tenant, role="owner")
    with transaction(tenant.id):
        people = Membership.objects.filter(tenant_id=tenant.id, user_id=tenant.owner.user_id)
        people.update(role="admin")
    problem(api.get("api-keys", key=made["key"]), 403, "role_missing")
    with transaction(tenant.id):
        people.update(role="owner")
    assert api.get("api-keys", key=made["key"]).status_code == 200
    with platform_transaction():
        User.objects.filter(pk=tenant.owner.user_id).update(is_active=False)
    problem(api.get("api-keys", key=made["key"]), 401, "authentication_failed")


def test_last_use_is_noted_to_the_minute(api: Api, tenant: World) -> None:
    made = issue(api, tenant, role="owner")
    assert made["last_used_at"] is None
    first = api.get(f"api-keys/{made['id']}", key=made["key"]).json()["last_used_at"]
    second = api.get(f"api-keys/{made['id']}", key=made["key"]).json()["last_used_at"]
    assert first == second
    assert abs(datetime.fromisoformat(first) - datetime.now(UTC)) < timedelta(minutes=1)
